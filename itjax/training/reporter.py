"""What a run tells while it trains: lines of metrics, the validation loss, sampled videos."""

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from itjax.media.video_file import write_video
from itjax.progress import Progress
from itjax.records import Dataset, Records
from itjax.training import data, flops, parameters, sampling, validation
from itjax.training.config import Training
from itjax.training.metrics import MetricLog, loss_by_band
from itjax.training.objective import Batch
from itjax.training.state import TrainState
from itjax.training.step import Report
from itjax.training.throughput import Meter, memory_in_use
from itjax.weights.sources import Weights


class TrainingRun(NamedTuple):
    """Everything of a run that its steps do not change.

    `trains`, `frozen`: shapes of the DiT's parameters. `progress`: receives notices and the bar; silent in all processes but
    the first.
    """

    settings: Training
    weights: Weights
    dataset: Dataset
    mesh: Mesh
    split: data.Split
    trains: dict
    frozen: dict
    progress: Progress


class PendingStep(NamedTuple):
    """A step that was given to the devices: its number, where the data stood before it, and what it will tell."""

    number: int
    position: dict[str, Any]
    names: list[str]
    latent: tuple[int, int, int]
    persons: int
    report: Report


def step_settings(settings: Training) -> Training:
    """Without the settings that no step reads: one program serves all runs that differ in these alone."""
    kept = Training()
    return replace(
        settings, data="", checkpoint="", run="", made_up=False, steps=kept.steps, processes=kept.processes,
        reports=kept.reports, checkpoints=kept.checkpoints,
    )  # fmt: skip


class Reporter:
    """The numbers of steps until they are reported, and the reports. Its methods are called by all processes together.

    `unreported` are the numbers of the steps since the last line. A checkpoint keeps them: the next line of a run that
    goes on is then that of one that never stopped.
    """

    def __init__(self, run: TrainingRun, frozen: dict, null_text: jax.Array, done: int, unreported: list[dict[str, Any]]):
        self._run, self._frozen, self._null_text = run, frozen, null_text
        settings = run.settings
        reports, held_out = settings.reports, run.split.held_out
        self._log = MetricLog(Path(settings.run), done) if jax.process_index() == 0 else None
        self._validation = validation.prepare(run.dataset, settings, held_out, run.mesh) if reports.validate_every else []
        self._sampling = None
        if reports.sample_every and held_out:
            self._sampling = sampling.prepare(settings, run.weights, run.dataset, run.mesh)
        self._trained = frozenset(parameters.flat(run.trains))
        self._seen: set[tuple[int, ...]] = set()
        self.unreported = unreported
        self.meter = Meter(list(run.mesh.devices.flat))
        self._bar = run.progress.bar(settings.steps, "step", done)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._log:
            self._log.close()
        self._bar.close()

    def compiling(self, batch: Batch) -> contextlib.AbstractContextManager[None]:
        """A pause of the meter where the step is compiled for a shape that is new."""
        new = batch.latents.shape not in self._seen
        self._seen.add(batch.latents.shape)
        return self.meter.pause() if new else contextlib.nullcontext()

    def add(self, pending: PendingStep) -> None:
        """Waits for the numbers of a step and keeps them for the next line; counts the step for the meter and the bar."""
        report = jax.device_get(pending.report)
        numbers = {name: getattr(report, name).tolist() for name in ("loss", "gradient_norm", "learning_rate")}
        self.unreported.append(numbers | {"losses": report.losses.tolist(), "times": report.times.tolist()})
        self._bar.describe(f"loss {report.loss:.4g}")
        self._bar.advance()
        networks = self._run.weights.preset.networks
        batch = self._run.settings.batch
        # the products of LoRA's own small matrices are not counted: nothing of the base's weights has a gradient
        trained = frozenset() if self._run.settings.trained.parts == "lora" else self._trained
        operations = flops.train_flops(networks, pending.latent, trained, batch, pending.persons)
        self.meter.step_done(batch * flops.video_tokens(networks, pending.latent), operations)

    def due(self, done: int) -> bool:
        """Whether step `done` is to be reported: its numbers must be there then."""
        reports = self._run.settings.reports
        return any(n and done % n == 0 for n in (reports.log_every, reports.validate_every, reports.sample_every))

    def report(self, done: int, now: TrainState) -> None:
        """The line of step `done`, where one is due."""
        reports = self._run.settings.reports
        values: dict[str, float] = {}
        if reports.log_every and done % reports.log_every == 0:
            values |= self._numbers() | self.meter.read() | memory_in_use()
        if reports.validate_every and done % reports.validate_every == 0 and self._validation:
            with self.meter.pause():
                settings, sizes = step_settings(self._run.settings), self._run.weights.preset.networks.dit
                values |= validation.loss(settings, sizes, _best(now), self._frozen, self._validation, self._null_text)
        if values and self._log:
            self._log.write(done, values)
            steps = {name: values[name] for name in ("loss", "validation/loss", "speed/steps_per_second") if name in values}
            self._run.progress.notice(f"step {done}: " + ", ".join(f"{name} {value:.4g}" for name, value in steps.items()))

    def _numbers(self) -> dict[str, float]:
        """Means over the steps since the last report."""
        steps, self.unreported = self.unreported, []
        losses, times = (np.concatenate([np.float32(step[name]) for step in steps]) for name in ("losses", "times"))
        values = {name: float(np.mean([step[name] for step in steps])) for name in ("loss", "gradient_norm")}
        return values | {"learning_rate": steps[-1]["learning_rate"]} | loss_by_band(losses, times)

    def sample(self, done: int, now: TrainState) -> None:
        """The video of step `done`, where one is due. It may take minutes: let what is to be saved be saved before."""
        run = self._run
        every, held_out = run.settings.reports.sample_every, run.split.held_out
        if not self._sampling or done % every:
            return
        place = held_out[(done // every - 1) % len(held_out)]
        clip = Records(run.dataset, run.dataset.buckets[place.bucket])[place.clip]
        began = time.monotonic()
        with self.meter.pause():
            frames = sampling.sample(self._sampling, run.settings, _best(now), self._frozen, clip)
        if self._log:
            path = Path(run.settings.run) / "samples" / f"{done:08d}.mp4"
            write_video(path, frames, None)
            self._log.video(done, "sample", frames)
            seconds = time.monotonic() - began
            run.progress.notice(f"step {done}: {path} ({seconds:.0f} s), source and sample of {clip.name}")


def _best(now: TrainState) -> dict:
    """The weights that a report is about: the average, where one is kept."""
    return now.trainable if now.ema is None else now.ema
