"""A full disk at the writes of a training run: its checkpoints stay whole, and the same command ends with the same result.

The network is replaced by one vector and a step that takes no time; data, reports and checkpoints are those of a run.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_dataset
from full_disk import full_disks
from left_threads import wait_for_threads

from itjax import records
from itjax.commands import train as command
from itjax.configs.tiny import PRESET
from itjax.configs.training import TINY
from itjax.terminal import run_command
from itjax.training import parameters, run, sampling, state, step
from itjax.training.config import Checkpoints
from itjax.training.step import Report
from itjax.weights.sources import Weights
from itjax.weights.store import open_checkpoint

STEPS = 3
WEIGHTS = 8
REPORTS = replace(TINY.reports, log_every=1, validate_every=0, sample_every=2)
# what Orbax's threads have left to say after a full disk, whenever they come to it
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning"),
]


def _step(now, good, frozen, batch, null_text):
    """In place of the network's: moves the weights by what the batch holds."""
    mean = batch.latents.mean()
    moved = jax.tree.map(lambda leaf: leaf + mean, now.trainable)
    size = batch.latents.shape[0]
    report = Report(good, mean, jnp.full(size, mean), jnp.full(size, 0.5), mean, mean)
    return now._replace(step=now.step + 1, trainable=moved), report


@pytest.fixture
def train(tmp_path, made_once, monkeypatch):
    """train(folder) -> the exit status."""
    data = records.open_dataset(made_once("clips", tiny_dataset.make_dataset))
    settings = replace(TINY, steps=STEPS, data=str(data.folder), checkpoint="tiny", reports=REPORTS)
    settings = replace(settings, checkpoints=Checkpoints(every=1, keep=2), optimizer=replace(TINY.optimizer, ema=0.0))
    weights = Weights(PRESET, Path(), "tiny", data.checkpoint, _unread)
    shapes = {"vector": jax.ShapeDtypeStruct((WEIGHTS,), jnp.float32)}
    begun = lambda *_: jax.device_put({"vector": np.zeros(WEIGHTS, np.float32)})
    frames = np.zeros((9, 32, 64, 3), np.uint8)
    compiled = jax.jit(_step)
    initial = jax.jit(state.initial_state, static_argnums=1)
    monkeypatch.setattr(parameters, "abstract", lambda sizes, trained: (shapes, {}))
    monkeypatch.setattr(parameters, "read_trainable", begun)
    monkeypatch.setattr(state, "sharded_initial_state", lambda trainable, optimizer, mesh: initial(trainable, optimizer))
    monkeypatch.setattr(step, "compile_step", lambda *_: compiled)
    monkeypatch.setattr(sampling, "prepare", lambda *_: object())
    monkeypatch.setattr(sampling, "sample", lambda *_: frames)

    def call(folder: Path) -> int:
        work = lambda: command.STATUS[run.train(replace(settings, run=str(folder)), weights)]
        return run_command("train.py", work, "stopped")

    return call


def _unread(*_):
    raise AssertionError("a network was read")


def _result(folder: Path) -> tuple[list[int], bytes, list[dict[str, float]]]:
    """The steps of the checkpoints, the state in the last one, and the reported numbers that do not depend on time."""
    kept = _kept(folder)
    arrays = open_checkpoint(folder / "checkpoints" / str(kept[-1]) / "state").tensors
    state_bytes = b"".join(name.encode() + arrays[name].read(()).tobytes() for name in sorted(arrays))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    numbers = [{name: x for name, x in line.items() if not name.startswith(("speed", "memory"))} for line in lines]
    return kept, state_bytes, numbers


def _kept(folder: Path) -> list[int]:
    """The steps of the complete checkpoints."""
    checkpoints = folder / "checkpoints"
    names = [path.name for path in checkpoints.iterdir()] if checkpoints.exists() else []
    return sorted(int(name) for name in names if name.isdecimal())


def _goes_on(train, folder: Path, expected, whole: Path) -> None:
    """What is kept can be read, and the run that goes on from it ends as one that nothing stopped."""
    for step_number in _kept(folder):
        for tensor in open_checkpoint(folder / "checkpoints" / str(step_number) / "state").tensors.values():
            tensor.read(())
    for video in folder.glob("samples/*.mp4"):
        assert video.read_bytes() == (whole / "samples" / video.name).read_bytes()
    assert train(folder) == 0
    steps, *rest = _result(folder)
    # between the last save and the deletion of the oldest checkpoint, that one stays too: the next save would delete it
    assert (steps[-len(expected[0]) :], *rest) == expected, folder.name


@pytest.fixture
def whole(train, tmp_path) -> Path:
    """A run on a disk with room."""
    assert train(tmp_path / "whole") == 0
    assert _kept(tmp_path / "whole") == [STEPS - 1, STEPS] and list(tmp_path.glob("whole/samples/*.mp4"))
    return tmp_path / "whole"


@pytest.mark.parametrize("every", [19, pytest.param(1, marks=pytest.mark.soak)])
def test_at_every_write(every, train, whole, tmp_path, capsys):
    expected, kept = _result(whole), []
    for folder, disk in full_disks(tmp_path, every):
        out = folder / "run"
        with pytest.MonkeyPatch.context() as patch:
            disk.install(patch)
            status = train(out)
        said = capsys.readouterr().err
        wait_for_threads()
        if status == 0:
            # there was room, or what could not be written is left out without harm (a lock, a leftover)
            assert _result(out) == expected and (disk.only or disk.count <= disk.at), folder.name
        else:
            assert status == 3 and said.count("\n") == 1, (folder.name, status, said)
            assert said.startswith("train.py: ") and "No space left on device" in said and str(out) in said, said
        kept += _kept(out)[-1:]
        _goes_on(train, out, expected, whole)
        shutil.rmtree(folder)
    assert set(kept) == set(range(1, STEPS + 1)), kept


def test_where_no_file_can_have_more_than_some_bytes(train, whole, tmp_path, disk_of, capsys):
    """As tensorstore and FFmpeg meet a full disk, whose calls are none of Python's."""
    expected = _result(whole)
    for nbytes in (0, 100, 700, 2_000):
        out = tmp_path / str(nbytes)
        with disk_of(nbytes):
            status = train(out)
        wait_for_threads()
        said = capsys.readouterr().err
        assert status == 3 and said.count("\n") == 1 and str(out) in said, (nbytes, status, said)
        assert "write" in said and "Traceback" not in said
        _goes_on(train, out, expected, whole)
