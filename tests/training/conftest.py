"""A dataset of random clips, and settings of short runs on it."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jax
import pytest
import tiny_dataset
import tyro

from itjax import records
from itjax.configs.training import PRESETS, TINY
from itjax.records import Dataset
from itjax.training import step
from itjax.training.config import Training

# tyro parses the sources of the settings once in a process, and CPython 3.11's parser fails where another thread parses
# beside it. train.py does so before it has threads; in a process of tests it would be amid those of other tests.
tyro.extras.overridable_config_cli(PRESETS, args=["tiny"])


@pytest.fixture(scope="session")
def compilation_cache() -> Path:
    """Where the programs of all tests are kept."""
    return Path(os.environ["JAX_COMPILATION_CACHE_DIR"])


@pytest.fixture(scope="session", autouse=True)
def steps_are_traced_once() -> Iterator[None]:
    """Runs of equal settings share the traced step, as they share the compiled one: tracing it takes seconds.

    Runs in processes of their own trace their own; those that are killed and go on are held against these.
    """
    compile_step, programs = step.compile_step, {}

    def remembered(settings, sizes, state, mesh):
        leaves, tree = jax.tree.flatten(state)
        key = settings, sizes, tree, tuple((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves), mesh
        if key not in programs:
            programs[key] = compile_step(settings, sizes, state, mesh)
        return programs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "compile_step", remembered)
        yield


@pytest.fixture(scope="session")
def dataset(made_once) -> Dataset:
    return records.open_dataset(made_once("clips", tiny_dataset.make_dataset))


@pytest.fixture
def settings(dataset, checkpoint, tmp_path) -> Callable[..., Training]:
    """settings(steps=4, ...): a short run that logs every step, without validation and samples."""
    reports = replace(TINY.reports, log_every=1, validate_every=0, sample_every=0)
    base = replace(TINY, data=str(dataset.folder), checkpoint=str(checkpoint), run=str(tmp_path / "run"), reports=reports)
    return lambda **changed: replace(base, **changed)
