"""Whole runs: one that was stopped, asked to end or killed, and went on, equals one that never stopped, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from test_metrics import events

from itjax import records
from itjax.commands import train
from itjax.terminal import Terminal
from itjax.training import data, parameters, run, validation
from itjax.training.config import Checkpoints
from itjax.training.reporter import Reporter

ROOT = Path(__file__).parents[2]
STEPS = 6
EVERY = {"log_every": 2, "validate_every": 3}  # a run that stops after 3 steps has a half line to take with it


def saved(folder, step):
    """Every array of a checkpoint by its path, as bytes: the step, what trains, its average and the moments."""
    tree = ocp.StandardCheckpointer().restore(Path(folder).resolve() / "checkpoints" / str(step) / "state")
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}
    assert {path.split("'")[1] for path in found} == {"step", "trainable", "optimizer", "ema"}
    return found


def numbers(folder):
    """The lines of metrics, without what another run of the same cannot have: times and memory."""
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [{name: x for name, x in line.items() if not name.startswith(("speed/", "memory/"))} for line in lines]


def checkpoints_in(folder):
    return sorted(int(path.name) for path in (Path(folder) / "checkpoints").iterdir() if path.name.isdecimal())


@pytest.fixture(scope="module")
def start(dataset, checkpoint, tmp_path_factory):
    """start("name", steps=4, ...) -> settings of a run in a folder of that name, on clips of two sizes."""
    folder = tmp_path_factory.mktemp("runs")
    base = replace(train.PRESETS["tiny"][1], data=str(dataset.folder), checkpoint=str(checkpoint), steps=STEPS)
    reports = replace(base.reports, sample_every=0, **EVERY)
    return lambda name, **changed: replace(base, run=str(folder / name), **({"reports": reports} | changed))


@pytest.fixture(scope="module")
def go(weights):
    return lambda settings: run.train(settings, weights, Terminal())


@pytest.fixture(scope="module")
def unbroken(start, go):
    """The folder of a run of 6 steps that never stopped, with a checkpoint of each."""
    settings = start("unbroken", checkpoints=Checkpoints(every=1, keep=STEPS))
    assert go(settings) is run.End.DONE
    assert checkpoints_in(settings.run) == [1, 2, 3, 4, 5, 6]
    return Path(settings.run)


def equal_runs(folder, unbroken):
    return saved(folder, STEPS) == saved(unbroken, STEPS) and numbers(folder) == numbers(unbroken)


@pytest.mark.slow
def test_stopped_and_resumed_equals_unbroken(start, go, unbroken, capsys):
    settings = start("resumed", steps=3)
    assert go(settings) is run.End.DONE
    assert saved(settings.run, 3) == saved(unbroken, 3) != saved(unbroken, 2)
    assert go(replace(settings, steps=STEPS)) is run.End.DONE
    assert equal_runs(settings.run, unbroken)
    printed = capsys.readouterr().out
    assert "training on 11 clips of 2 size(s), 1 held out" in printed and "resuming after step 3" in printed
    assert go(replace(settings, steps=STEPS)) is run.End.DONE  # nothing to do, and nothing done
    assert equal_runs(settings.run, unbroken)


@pytest.mark.slow
def test_stopped_and_resumed_with_muon_equals_unbroken(start, go):
    asked = {"optimizer": replace(train.PRESETS["tiny"][1].optimizer, name="muon"), "checkpoints": Checkpoints(every=1)}
    one, two = start("muon", steps=2, **asked), start("muon in two parts", steps=1, **asked)
    for settings in (one, two, replace(two, steps=2)):
        assert go(settings) is run.End.DONE
    assert saved(two.run, 2) == saved(one.run, 2) != saved(one.run, 1)


def test_both_sizes_of_clips_were_trained_on(dataset, start, weights):
    opened = run.open_run(start("not begun"), weights)
    stream = data.Stream(opened.dataset, opened.settings, opened.split.train, opened.mesh)
    assert {next(stream)[0].latents.shape[2:4] for _ in range(STEPS)} == {(4, 8), (6, 6)}


@pytest.mark.parametrize(("decay_steps", "warned"), [(0, False), (30, True), (40, False), (50, False)])
def test_steps_without_a_learning_rate_are_told(start, weights, capsys, decay_steps, warned):
    optimizer = replace(train.PRESETS["tiny"][1].optimizer, decay_steps=decay_steps)
    run.open_run(start("not begun", steps=40, optimizer=optimizer), weights, Terminal())
    told = "rate is zero in the last 10 of 40 steps, as --optimizer.decay-steps is 30"
    assert (told in capsys.readouterr().out) == warned


def test_what_is_reported(unbroken):
    lines = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3, 4, 6]
    logged = {"loss", "gradient_norm", "learning_rate", "speed/steps_per_second", "speed/tokens_per_second"}
    for line in lines:
        assert all(np.isfinite(x) for x in line.values()) and all(x > 0 for x in line.values())
        assert logged <= line.keys() if line["step"] % 2 == 0 else "validation/loss" in line
        assert "memory/host_peak_gib" in line or line["step"] == 3
        bands = [x for name, x in line.items() if name.startswith("loss/tau_")]
        # means of parts of the examples lie on both sides of the mean of all
        assert not bands or min(bands) - 1e-5 <= line["loss"] <= max(bands) + 1e-5
    assert [line["learning_rate"] for line in lines if "loss" in line] == pytest.approx([2e-4, 4e-4, 6e-4])
    assert {f"validation/loss/tau_{a}" for a in ("0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00")} <= lines[1].keys()
    shown = {(e.step, v.tag): v.simple_value for e in events(unbroken) for v in e.summary.value}
    printed = {(line["step"], name): np.float32(x) for line in lines for name, x in line.items() if name != "step"}
    assert shown == printed


def test_metrics_that_are_never_reported_are_not_collected(start, go, unbroken):
    settings = start("not logged", steps=2)
    assert go(replace(settings, reports=replace(settings.reports, log_every=0, validate_every=0))) is run.End.DONE
    unreported = lambda folder, step: json.loads((Path(folder) / f"checkpoints/{step}/data/metadata").read_text())[
        "unreported"
    ]
    assert unreported(settings.run, 2) == [] and len(unreported(unbroken, 3)) == 1


def test_the_meter_pauses_for_every_program_that_is_compiled(dataset, start, weights):
    opened = run.open_run(start("not begun"), weights)
    batch, _ = next(data.Stream(opened.dataset, opened.settings, opened.split.train, opened.mesh))
    two_persons = batch._replace(speech=jnp.concatenate([batch.speech] * 2, axis=1))
    paused = []
    reporter = SimpleNamespace(_seen=set(), meter=SimpleNamespace(pause=lambda: paused.append(1) or nullcontext()))
    for each in (batch, two_persons, batch, two_persons):
        Reporter.compiling(reporter, each)
    assert len(paused) == 2


@pytest.mark.slow
def test_the_validation_loss_depends_on_the_weights_alone(start, weights):
    opened = run.open_run(start("not begun"), weights)
    mesh, settings, sizes = opened.mesh, opened.settings, weights.preset.networks.dit
    frozen = parameters.read_frozen(weights, sizes, settings.trained, mesh, jnp.float32)
    trains = parameters.read_trainable(weights, sizes, settings.trained, mesh, seed=0)
    null_text = jnp.asarray(records.null_prompts(opened.dataset)[0])
    parts = [validation.prepare(opened.dataset, settings, opened.split.held_out, mesh) for _ in range(2)]
    first, again = (validation.loss(settings, sizes, trains, frozen, part, null_text) for part in parts)
    assert first == again and len(first) == 5
    moved = jax.tree.map(lambda x: x * 1.01, trains)
    assert (
        validation.loss(settings, sizes, moved, frozen, parts[0], null_text)["validation/loss"] != first["validation/loss"]
    )


def command(settings):
    """The command line that gives these settings, where they differ from the preset in what is named here."""
    flags = {"data": settings.data, "checkpoint": settings.checkpoint, "run": settings.run, "steps": settings.steps}
    flags |= {f"reports.{name.replace('_', '-')}": every for name, every in EVERY.items()} | {"reports.sample-every": 0}
    flags |= {"checkpoints.every": settings.checkpoints.every}
    return ["tiny", *(str(part) for name, value in flags.items() for part in (f"--{name}", value))]


# a process that kills itself at a moment that no other process could hit
KILLED_AMID_SAVE_5 = """
import os, signal, train
from orbax.checkpoint._src.path import atomicity

async def finalize(self, *args, **kwargs):
    if self.get_final().name == "5":
        os.kill(os.getpid(), signal.SIGKILL)
    return await whole(self, *args, **kwargs)

whole = atomicity.AtomicRenameTemporaryPath.finalize
atomicity.AtomicRenameTemporaryPath.finalize = finalize
train.run()
"""


@pytest.mark.slow
def test_asked_to_end_then_killed_amid_a_save_and_resumed_equals_unbroken(start, go, unbroken, monkeypatch, capfd):
    settings = start("killed", checkpoints=Checkpoints(every=1000))
    report = Reporter.report

    def asks(self, done, now):
        report(self, done, now)
        if done == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Reporter, "report", asks)
    assert train.main(command(settings)) == train.PREEMPTED == 75
    printed = capfd.readouterr()
    assert "ending: this step will be finished and saved\n" in printed.err
    assert "step 2 is saved; run the same command to continue" in printed.out
    assert checkpoints_in(settings.run) == [2] and saved(settings.run, 2) == saved(unbroken, 2)

    call = [sys.executable, "-c", KILLED_AMID_SAVE_5, *command(replace(settings, checkpoints=Checkpoints(every=1)))]
    child = subprocess.run(
        call, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=300
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert checkpoints_in(settings.run) == [3, 4] and saved(settings.run, 4) == saved(unbroken, 4)
    assert list((Path(settings.run) / "checkpoints").glob("5.*"))  # it had begun

    assert go(settings) is run.End.DONE
    assert equal_runs(settings.run, unbroken)
    assert not list((Path(settings.run) / "checkpoints").glob("5.*"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_asked_to_end_before_the_first_step(start, monkeypatch, number, status, capfd):
    settings = start(f"asked at once {number}")
    opening = run.open_run
    monkeypatch.setattr(run, "open_run", lambda *args: os.kill(os.getpid(), number) or opening(*args))
    assert train.main(command(settings)) == status
    printed = capfd.readouterr()
    assert "step 0 is saved" in printed.out and "ending: this step will be finished and saved" in printed.err
    assert ("press Ctrl-C again to end at once" in printed.err) == (number == signal.SIGINT)
    assert checkpoints_in(settings.run) == [0] and numbers(settings.run) == []


def test_a_second_ctrl_c_ends_at_once(start, monkeypatch, capsys):
    monkeypatch.setattr(run, "open_run", lambda *args: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    assert train.main(command(start("impatient"))) == 130
    assert "run the same command to continue from the last checkpoint" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_a_video_is_sampled_beside_its_source(start, go, unbroken):
    settings = start("sampled", steps=2)
    reports = replace(
        settings.reports, sample_every=2, sample_seconds=1.0, sampler=replace(settings.reports.sampler, steps=1)
    )
    settings = replace(settings, reports=reports)
    assert go(settings) is run.End.DONE
    assert saved(settings.run, 2) == saved(unbroken, 2)  # a sample draws nothing of the training
    (path,) = (Path(settings.run) / "samples").iterdir()
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert path.name == "00000002.mp4" and frames[0].shape == (32, 2 * 64, 3)
    # 25 frames are asked for: a chunk of 17 fits, the next one would go on to 25, from 9 frames of the first
    assert len(frames) == 25
    pictures = [
        value.image for event in events(Path(settings.run)) for value in event.summary.value if value.HasField("image")
    ]
    assert [(picture.height, picture.width) for picture in pictures] == [(32, 128)]
