"""A dataset of random clips, and settings of short runs on it."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_dataset
import tyro

from itjax.configs.training import PRESETS, TINY
from itjax.records import Dataset
from itjax.training.config import Training

# tyro parses the sources of the settings once in a process, and CPython 3.11's parser fails where another thread parses
# beside it. train.py does so before it has threads; in a process of tests it would be amid those of other tests.
tyro.extras.overridable_config_cli(PRESETS, args=["tiny"])


@pytest.fixture(scope="session")
def compilation_cache() -> Path:
    """Where the programs of all tests are kept."""
    return Path(os.environ["JAX_COMPILATION_CACHE_DIR"])


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Dataset:
    return tiny_dataset.make_dataset(tmp_path_factory.mktemp("dataset") / "data")


@pytest.fixture
def settings(dataset, checkpoint, tmp_path) -> Callable[..., Training]:
    """settings(steps=4, ...): a short run that logs every step, without validation and samples."""
    reports = replace(TINY.reports, log_every=1, validate_every=0, sample_every=0)
    base = replace(TINY, data=str(dataset.folder), checkpoint=str(checkpoint), run=str(tmp_path / "run"), reports=reports)
    return lambda **changed: replace(base, **changed)
