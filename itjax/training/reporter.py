"""Reports of a training run: metrics, validation loss, sampled videos."""

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
from itjax.training import examples, flops, parameters, sampling, validation
from itjax.training.config import Training
from itjax.training.metrics import MetricLog, loss_by_band
from itjax.training.objective import Batch
from itjax.training.state import TrainState
from itjax.training.step import Report
from itjax.training.throughput import Meter, memory_in_use
from itjax.weights.sources import Weights


class TrainingRun(NamedTuple):
    """The parts of a run that stay constant during training.

    `trainable`, `frozen`: shapes of the DiT's parameters that are trained or not. `progress`: silent in all processes but
    the first.
    """

    settings: Training
    weights: Weights
    dataset: Dataset
    mesh: Mesh
    split: examples.Split
    trainable: dict
    frozen: dict
    progress: Progress


class PendingStep(NamedTuple):
    """A step started on the devices: its number, the stream position before it, its clips, and its future report."""

    number: int
    position: dict[str, Any]
    names: list[str]
    latent: tuple[int, int, int]
    persons: int
    report: Report


def step_settings(settings: Training) -> Training:
    """Resets settings that steps do not use, so that runs that differ only in these share a compiled program."""
    defaults = Training()
    return replace(
        settings, data="", checkpoint="", run="", made_up=False, steps=defaults.steps, processes=defaults.processes,
        reports=defaults.reports, checkpoints=defaults.checkpoints,
    )  # fmt: skip


class Reporter:
    """Collects the metrics of steps and reports them. All processes must call its methods together.

    `unreported`: the metrics of the steps since the last report. They are saved in checkpoints, so that the next report of a
    resumed run is the same as without the interruption.
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
        self._trained = frozenset(parameters.flat(run.trainable))
        self._seen: set[tuple[tuple[int, ...], ...]] = set()
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
        """Pauses the meter if the step is compiled for new shapes of a batch: of its pictures, or its number of persons."""
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        new = shapes not in self._seen
        self._seen.add(shapes)
        return self.meter.pause() if new else contextlib.nullcontext()

    def add(self, pending: PendingStep) -> None:
        """Waits for a step's metrics and stores them for the next report; advances the meter and the progress bar."""
        report = jax.device_get(pending.report)
        if self._run.settings.reports.log_every:  # else the list would grow for the whole run
            metrics = {name: getattr(report, name).tolist() for name in ("loss", "gradient_norm", "learning_rate")}
            self.unreported.append(metrics | {"losses": report.losses.tolist(), "times": report.times.tolist()})
        self._bar.describe(f"loss {report.loss:.4g}")
        self._bar.advance()
        networks = self._run.weights.preset.networks
        batch = self._run.settings.batch
        # LoRA: the base weights have no gradients, and the products with LoRA's own small matrices are not counted
        trained = frozenset() if self._run.settings.trained.parts == "lora" else self._trained
        operations = flops.train_flops(networks, pending.latent, trained, batch, pending.persons)
        self.meter.step_done(batch * flops.video_tokens(networks, pending.latent), operations)

    def due(self, done: int) -> bool:
        """Whether a report is due after step `done`, for which all its metrics must be available."""
        reports = self._run.settings.reports
        return any(n and done % n == 0 for n in (reports.log_every, reports.validate_every, reports.sample_every))

    def report(self, done: int, now: TrainState) -> None:
        """Reports metrics and validation loss after step `done`, if they are due."""
        reports = self._run.settings.reports
        values: dict[str, float] = {}
        if reports.log_every and done % reports.log_every == 0:
            values |= self._mean_metrics() | self.meter.read() | memory_in_use()
        if reports.validate_every and done % reports.validate_every == 0 and self._validation:
            with self.meter.pause():
                settings, sizes = step_settings(self._run.settings), self._run.weights.preset.networks.dit
                values |= validation.loss(
                    settings, sizes, _evaluated_weights(now), self._frozen, self._validation, self._null_text
                )
        if values and self._log:
            self._log.write(done, values)
            steps = {name: values[name] for name in ("loss", "validation/loss", "speed/steps_per_second") if name in values}
            self._run.progress.notice(f"step {done}: " + ", ".join(f"{name} {value:.4g}" for name, value in steps.items()))

    def _mean_metrics(self) -> dict[str, float]:
        """The mean metrics of the steps since the last report."""
        steps, self.unreported = self.unreported, []
        losses, times = (np.concatenate([np.float32(step[name]) for step in steps]) for name in ("losses", "times"))
        values = {name: float(np.mean([step[name] for step in steps])) for name in ("loss", "gradient_norm")}
        return values | {"learning_rate": steps[-1]["learning_rate"]} | loss_by_band(losses, times)

    def sample(self, done: int, now: TrainState) -> None:
        """Samples a video after step `done`, if one is due. May take minutes: save any checkpoint before."""
        run = self._run
        every, held_out = run.settings.reports.sample_every, run.split.held_out
        if not self._sampling or done % every:
            return
        index = held_out[(done // every - 1) % len(held_out)]
        clip = Records(run.dataset, run.dataset.buckets[index.bucket])[index.clip]
        start = time.monotonic()
        with self.meter.pause():
            frames = sampling.sample(self._sampling, run.settings, _evaluated_weights(now), self._frozen, clip)
        if self._log:
            path = Path(run.settings.run) / "samples" / f"{done:08d}.mp4"
            write_video(path, frames, None)
            self._log.video(done, "sample", frames)
            seconds = time.monotonic() - start
            run.progress.notice(f"step {done}: {path} ({seconds:.0f} s), source and sample of {clip.name}")


def _evaluated_weights(now: TrainState) -> dict:
    """The weights to evaluate: the moving average if there is one."""
    return now.trainable if now.ema is None else now.ema
