"""Shared by all tests: shapes are checked at run time, and the recordings of the official code are at hand."""

import contextlib
import gc
import importlib.util
import mmap
import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import few_checks
import pytest
from filelock import FileLock
from jaxtyping import install_import_hook

install_import_hook(["itjax"], "few_checks.beartype_at_first")

pytest_plugins = ["infer_runs"]  # fixtures of the folders end_to_end and pipeline
RECORDINGS = Path(__file__).parent / "recordings"
# folders whose tests go to one worker of a parallel run, for the sake of a fixture
TOGETHER = ("preparation",)
LONGEST = (
    "test_kills.py", "test_small_model.py", "test_step.py", "test_processes.py", "test_run.py",
    "test_run_refusals.py", "test_vae_training.py", "test_request.py", "test_odd_inputs.py", "test_sharded_step.py",
    "test_sharded.py", "test_report.py",
)  # fmt: skip
# Many tests compile the same programs: the second one finds them here, in processes of its own, and in the other workers of
# a parallel run (which have the variable from the process that started them). Set before JAX runs anything, which is when it
# looks; and not the user's own cache.
if "PYTEST_XDIST_WORKER" not in os.environ:
    COMPILED = tempfile.TemporaryDirectory(prefix="itjax-xla-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
    # with a largest size JAX takes a lock (filelock) to read and to write: else one worker could read what another writes
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(10**11)
    # What compiles in less time is not kept: JAX looks at all files of the cache before it writes one, and there are
    # thousands of small programs.
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
# JAX traces by making objects by the hundred thousand, most of which stay: they need not be looked at after every 700.
gc.set_threshold(10_000, 10, 10)
# In a background job of a shell SIGINT is ignored from the start; tests send it to themselves and their children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Most of the time goes into compiling programs that run once: as little as possible is done for their speed, XLA's older way
# to write kernels takes half the time of its newer one, and a program in one piece a fifth less than one in 32 for threads.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
QUICK_TO_COMPILE = {"--xla_cpu_use_fusion_emitters": "false", "--xla_cpu_parallel_codegen_split_count": "1"}


def is_known(flag: str) -> bool:
    """Whether this version of XLA has the flag: one that it does not know ends the process."""
    for library in Path(importlib.util.find_spec("jaxlib").origin).parent.glob("*.so"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(flag.strip("-").encode()) >= 0:
                return True
    return False


if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1" and "PYTEST_XDIST_WORKER" not in os.environ:
    known = [f"{flag}={value}" for flag, value in QUICK_TO_COMPILE.items() if is_known(flag)]
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *known]).strip()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What lasts longest comes first, else one worker ends long after the other. Within a file the order stays."""
    if config.pluginmanager.hasplugin("xdist"):
        long = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: long.get(item.path.name, len(long)))


def pytest_collection_finish() -> None:
    gc.freeze()  # modules and tests stay until the end


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """For `pytest -n 2 --dist loadgroup`: a worker takes a file, or all files of a folder that share what is dear to make.

    Not by marks of groups: pytest-xdist 3.8 adds them to a private name of pytest's, which pytest 9.2 does not have, and
    then every test is a group of its own.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.split("::", 1)[0])
            return file.parent.name if file.parent.name in TOGETHER else file.as_posix()

    config.option.loadscopereorder = False  # by numbers of tests: what lasts longest comes first instead (LONGEST)
    return ByFile(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    few_checks.check_again()


@pytest.fixture(scope="session")
def devices() -> Callable[[int], dict[str, str]]:
    """devices(8) -> the environment of a process to which the CPU is so many devices."""

    def environment(count: int) -> dict[str, str]:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
        return os.environ | {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}

    return environment


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """made_once(name, make) -> a folder, or file, that `make(path)` made: one for all workers. Not to be written to."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"
    shared.mkdir(exist_ok=True)

    def path_of(name: str, make: Callable[[Path], object]) -> Path:
        path, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                make(path)
                done.touch()
        return path

    return path_of


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
def checkpoint(recordings, made_once) -> Path:
    """The folder of the recordings' tiny checkpoint, converted."""
    folder = recordings / "checkpoint"

    def convert(output: Path) -> None:
        from itjax.commands import convert as convert_weights

        flags = {
            "--ckpt_dir": folder / "Wan2.1-I2V-14B-480P",
            "--wav2vec_dir": folder / "chinese-wav2vec2-base",
            "--infinitetalk_dir": folder / "InfiniteTalk/single/infinitetalk.safetensors",
            "--output": output,
        }
        assert convert_weights.main([str(part) for pair in flags.items() for part in pair]) == 0

    return made_once("checkpoint", convert)


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
