"""Fixtures: the videos of three methods, and a study of them."""

import pytest
from study_parts import write_methods

from itjax.study.make import make
from itjax.study.plan import key_path, read_key


@pytest.fixture(scope="session")
def videos(made_once):
    """A folder with a folder per method. Not to be written to."""
    return made_once("study-videos", write_methods)


@pytest.fixture
def study(videos, tmp_path):
    """(folder, key) of a study of these videos."""
    make(videos, tmp_path / "study", "A study")
    return tmp_path / "study", read_key(key_path(tmp_path / "study"))
