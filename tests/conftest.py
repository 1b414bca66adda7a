"""Shared by all tests: shapes are checked at run time, and the recordings of the official code are at hand."""

import contextlib
import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook(["itjax"], "beartype.beartype")

pytest_plugins = ["infer_runs"]  # fixtures of the folders end_to_end and pipeline
RECORDINGS = Path(__file__).parent / "recordings"
# Many tests compile the same programs: the second one finds them here, in processes of its own, and in the other workers of
# a parallel run (which have the variable from the process that started them). Set before JAX runs anything, which is when it
# looks; and not the user's own cache.
if "PYTEST_XDIST_WORKER" not in os.environ:
    COMPILED = tempfile.TemporaryDirectory(prefix="itjax-xla-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
    # with a largest size JAX takes a lock (filelock) to read and to write: else one worker could read what another writes
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(10**11)
# In a background job of a shell SIGINT is ignored from the start; tests send it to themselves and their children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Most of the time goes into compiling programs that run once: as little as possible is done for their speed.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recordings: what the official PyTorch code computed in float32 with a tiny random checkpoint."""
    return RECORDINGS


@pytest.fixture(scope="session")
def module_recording():
    """module_recording("dit_one_person") -> {name: numpy array}."""
    from safetensors.numpy import load_file

    return lambda name: load_file(RECORDINGS / "modules" / f"{name}.safetensors")


@pytest.fixture(scope="session")
def checkpoint(recordings, tmp_path_factory) -> Path:
    """The folder of the recordings' tiny checkpoint, converted."""
    from itjax.commands import convert as convert_weights

    folder, output = recordings / "checkpoint", tmp_path_factory.mktemp("checkpoint") / "tiny"
    flags = {
        "--ckpt_dir": folder / "Wan2.1-I2V-14B-480P",
        "--wav2vec_dir": folder / "chinese-wav2vec2-base",
        "--infinitetalk_dir": folder / "InfiniteTalk/single/infinitetalk.safetensors",
        "--output": output,
    }
    assert convert_weights.main([str(part) for pair in flags.items() for part in pair]) == 0
    return output


@pytest.fixture(scope="session")
def weights(checkpoint):
    """The tiny checkpoint, converted and opened."""
    from itjax.weights.sources import open_converted

    return open_converted(checkpoint, [])


@pytest.fixture(scope="session")
def disk_of() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """disk_of(nbytes): within its block no file can grow beyond `nbytes`, as if the disk were full."""

    @contextlib.contextmanager
    def limited(nbytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
