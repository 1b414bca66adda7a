"""A file or folder is there whole, under its name, or not at all."""

import errno
import os

import pytest

from itjax.disk import atomic_path, write_text
from itjax.errors import OutputError


def test_leftovers_go_and_living_runs_stay(tmp_path):
    target = tmp_path / "out"
    dead = tmp_path / "out.tmp-0123abcd"
    dead.mkdir()
    (dead / "half").write_text("")
    with atomic_path(target) as living:
        living.write_text("first")
        assert not dead.exists()
        with atomic_path(target) as other:
            other.write_text("second")
        assert living.exists() and target.read_text() == "second"
    assert target.read_text() == "first" and os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["out.tmp-backup", "out.tmp-0123", "out.tmp-0123abcde", "out.tmp-0123ABCD"])
def test_a_folder_of_somebody_else_stays(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "precious").write_text("")
    write_text(tmp_path / "out", "new")
    assert sorted(os.listdir(tmp_path)) == ["out", name] and (tmp_path / name / "precious").exists()


def test_nothing_is_left_of_a_failure(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "out") as temporary:
        temporary.mkdir()
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == []


def test_contents_are_on_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    """In this order: a power failure may otherwise leave an empty file under the name."""
    events: list[str] = []
    name_of = lambda handle: os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: events.append(name_of(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: events.append("replaced") or replace(*paths))
    with atomic_path(tmp_path / "out") as folder:
        (folder / "inner").mkdir(parents=True)
        (folder / "inner" / "a").write_text("a")
        (folder / "b").write_text("b")
    assert sorted(events[:4]) == ["a", "b", "inner", "out"] and events[4:] == ["replaced", tmp_path.name]
    events.clear()
    write_text(tmp_path / "text", "t")
    assert events == ["text", "replaced", tmp_path.name]


def test_a_disk_that_fails_while_flushing_leaves_nothing(tmp_path, monkeypatch):
    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_text(tmp_path / "out", "old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=r"cannot write .*out: No space left"):
        write_text(tmp_path / "out", "new")
    assert os.listdir(tmp_path) == ["out"] and (tmp_path / "out").read_text() == "old"


def test_a_file_system_that_cannot_flush_folders(tmp_path, monkeypatch):
    def refuse(handle: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    write_text(tmp_path / "out", "new")
    assert (tmp_path / "out").read_text() == "new"
