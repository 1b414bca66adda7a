"""Pickles of arrays are read, and no other."""

import pickle

import numpy as np
import pytest

from itjax.errors import UserError
from itjax.evaluation.numpy_pickle import read_arrays


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, 4))
    return path


def test_nested_arrays_are_read(tmp_path):
    arrays = {"params": {"a/b": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3)}}, "count": np.array([3])}
    for protocol in (3, 4):
        found = read_arrays(written(tmp_path / "x", pickle.dumps(arrays, protocol)))
        assert list(found) == ["params/a/b/kernel", "count"]
        np.testing.assert_array_equal(found["params/a/b/kernel"], arrays["params"]["a/b"]["kernel"])
        assert found["params/a/b/kernel"].dtype == np.float32
    # as NumPy 1 wrote it, of which the file in the package is
    old = pickle.dumps(arrays, 3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert list(read_arrays(written(tmp_path / "x", old))) == ["params/a/b/kernel", "count"]


class Command:
    def __reduce__(self):
        import os

        return os.mkdir, ("ran",)


class Huge:
    def __reduce__(self):
        return np.ndarray, ((10**14,),)


def test_nothing_else_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in ({"a": Command()}, {"a": Huge()}, {"a": np.array([Command()], object)}, {"a": np.array(["text"])}):
        with pytest.raises(UserError, match=r"x (was refused|is damaged)"):
            read_arrays(written(tmp_path / "x", content))
    assert not (tmp_path / "ran").exists()


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    with pytest.raises(UserError, match=r"x: no such file\. It should be a pickle of NumPy arrays"):
        read_arrays(tmp_path / "x")
    with pytest.raises(UserError, match="a is a list"):
        read_arrays(written(tmp_path / "x", {"a": [1, 2]}))
    whole = pickle.dumps({"a": np.zeros(100)}, 4)
    for content in (whole[: len(whole) // 2], b"\x89PNG"):
        with pytest.raises(UserError, match=r"x is damaged or not a pickle of NumPy arrays|x was refused"):
            read_arrays(written(tmp_path / "x", content))
