"""A folder of small videos, and the dataset made of it: encoded once for all tests that read it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import made_videos
import pytest

from itjax import records
from itjax.preparation import __main__ as command
from itjax.records import Clip, Dataset, Records
from itjax.weights.sources import open_converted


@pytest.fixture(scope="session", autouse=True)
def settings_of_jax() -> Iterator[None]:
    """The command changes settings of the process; other tests shall not see it."""
    names = "jax_compilation_cache_dir", "jax_default_matmul_precision"
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    """Usable videos, and files that are not."""
    folder = tmp_path_factory.mktemp("media") / "videos"
    made_videos.usable(folder)
    made_videos.unusable(folder)
    return folder


@pytest.fixture(scope="session")
def flags(checkpoint) -> list[str]:
    return [*made_videos.FLAGS, "--checkpoint", str(checkpoint)]


@pytest.fixture(scope="session")
def prepare(flags, checkpoint, weights) -> Iterator[Callable[..., int]]:
    """prepare(folder, out, ...): the command's exit status, run in this process, so that programs compile once.

    The checkpoint is opened once as well: that traces every network to know its shapes, which takes a second or two.
    """
    assert os.environ.get("JAX_COMPILATION_CACHE_DIR"), "else the command writes to the user's own cache"
    opened = lambda folder, loras: weights if folder == checkpoint else open_converted(folder, loras)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "open_converted", opened)
        yield lambda folder, out, *more: command.main([str(part) for part in (folder, out, *flags, *more)])


@pytest.fixture(scope="session")
def dataset(prepare, videos, tmp_path_factory) -> Dataset:
    """Made without a break. Not to be written to."""
    out = tmp_path_factory.mktemp("dataset") / "data"
    assert prepare(videos, out) == 0
    return records.open_dataset(out)


@pytest.fixture(scope="session")
def clips(dataset) -> dict[str, Clip]:
    """All records by name."""
    return {clip.name: clip for bucket in dataset.buckets for clip in Records(dataset, bucket)}
