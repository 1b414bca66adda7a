"""A file or folder is there whole, under its name, or not at all."""

import os

import pytest

from itjax.disk import atomic_path


def test_leftovers_go_and_living_runs_stay(tmp_path):
    target = tmp_path / "out"
    dead = tmp_path / "out.tmp-0123"
    dead.mkdir()
    (dead / "half").write_text("")
    with atomic_path(target) as living:
        living.write_text("first")
        assert not dead.exists()
        with atomic_path(target) as other:
            other.write_text("second")
        assert living.exists() and target.read_text() == "second"
    assert target.read_text() == "first" and os.listdir(tmp_path) == ["out"]


def test_nothing_is_left_of_a_failure(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "out") as temporary:
        temporary.mkdir()
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == []
