"""A training run of the speech encoder: the loop, its reports and checkpoints, and the result at the end."""

import contextlib
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import SingleDeviceSharding

from itjax.errors import UserError
from itjax.pipeline.process import exact_float32
from itjax.progress import SILENT, Progress
from itjax.training import run_folder
from itjax.training.checkpoints import RunCheckpoints
from itjax.training.config import Checkpoints, Training
from itjax.training.metrics import MetricLog
from itjax.training.preemption import Preemption
from itjax.training.run import End, stopped_by
from itjax.training.speech_encoder import curve, export, readout, speech, step
from itjax.training.speech_encoder.settings import SpeechTraining
from itjax.training.speech_encoder.step import StepReport
from itjax.training.state import TrainState


def train(settings: SpeechTraining, folder: Path, progress: Progress = SILENT) -> End:
    """Starts or resumes the run in `folder`; at its end writes the curve and the folder "export" there.

    Raises:
        UserError: If the folder holds another run, espeak-ng or matplotlib is not installed, or the loss is not finite.
        OutputError: If a file cannot be written.
    """
    curve.check_matplotlib()
    with contextlib.ExitStack() as stack:
        preemption = stack.enter_context(Preemption())
        stack.enter_context(run_folder.locked(folder))
        content = {"version": 1, "identity": "speech encoder", "training": {"speech_encoder": asdict(settings)}}
        run_folder.write_or_compare(epath.Path(folder), run_folder.as_stored(content))
        stack.enter_context(exact_float32())
        place = Training(run=str(folder), checkpoints=Checkpoints(every=settings.save_every))
        checkpoints = stack.enter_context(RunCheckpoints(place))
        loop = SpeechLoop(settings, folder, checkpoints, progress)
        stack.enter_context(loop.log)
        loop.run(preemption)
        if loop.spent < 1:
            progress.notice(f"step {loop.done} is saved; run the same command to continue")
            return stopped_by(preemption)
    curve.write(folder)
    export.write(folder, settings, loop.now.trainable, loop.fit, loop.done, loop.spent_time(), progress)
    return End.DONE


class SpeechLoop:
    """The state after `done` steps, which spent `spent` of the budget, and what the next report needs.

    Made from the last checkpoint if there is one.
    """

    def __init__(self, settings: SpeechTraining, folder: Path, checkpoints: RunCheckpoints, progress: Progress):
        self._settings, self._checkpoints, self._progress = settings, checkpoints, progress
        last = checkpoints.last()
        position: dict[str, Any] = {"seconds": 0.0, "core_seconds": 0.0, "unreported": []}
        if last is None:
            self.now: TrainState = step.initial_state(settings)
        else:
            device = SingleDeviceSharding(jax.devices()[0])
            placed = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)
            self.now, position = checkpoints.restore(
                last, jax.tree.map(placed, jax.eval_shape(lambda: step.initial_state(settings)))
            )
            progress.notice(f"resuming after step {last}")
        self.done, self._unreported = int(self.now.step), position["unreported"]
        # taken once after each step: with a budget of minutes, the next step and the report must agree on it
        self.spent = settings.spent(self.done, position["seconds"])
        self._before = position["seconds"] - time.monotonic(), position["core_seconds"] - time.process_time()
        seconds = settings.held_out_seconds
        self.fit = speech.make_many(speech.FIT_SEED, settings.fit_clips, seconds, "train")
        self._validation = speech.make_many(speech.HELD_OUT_SEED, settings.held_out_clips, seconds, "validation")
        self.log = MetricLog(folder, self.done)

    def spent_time(self) -> tuple[float, float]:
        """Seconds and core-seconds of the whole run, interruptions excluded."""
        return self._before[0] + time.monotonic(), self._before[1] + time.process_time()

    def run(self, preemption: Preemption) -> None:
        """Trains until the budget is spent or a signal comes; the state is saved then.

        Raises:
            UserError: If the loss is not finite, or speech cannot be made.
        """
        settings = self._settings
        batches, program = speech.stream(settings, self.done), step.compile_step(settings)
        with self._progress.bar(settings.steps or 0, "step", self.done) as bar:
            while self.spent < 1 and not preemption.reached(self.done):
                rate = step.learning_rate(settings, self.done + 1, self.spent)
                self.now, report = program(self.now, next(batches), rate)
                self._collect(jax.device_get(report), rate)
                bar.advance()
                self._report()
                if self.done % settings.save_every == 0:
                    self._save()
        if self._checkpoints.last() != self.done:
            self._save()
        self._checkpoints.wait()

    def _collect(self, report: StepReport, rate: float) -> None:
        values = {name: float(value) for name, value in report._asdict().items()}
        if not all(map(math.isfinite, values.values())):
            raise UserError(
                f"step {self.done + 1}: the loss is {values['loss']} and the gradient norm {values['gradient_norm']}; the "
                f"last saved step is {self._checkpoints.last() or 0}. Another --seed in another folder may help."
            )
        self.done += 1
        self.spent = self._settings.spent(self.done, self.spent_time()[0])
        self._unreported.append(values | {"learning_rate": rate})

    def _report(self) -> None:
        settings, values = self._settings, dict[str, float]()
        if self.done % settings.log_every == 0:
            values |= {name: float(np.mean([step[name] for step in self._unreported])) for name in self._unreported[0]}
            self._unreported = []
        if self.done % settings.validate_every == 0 or self.spent == 1:
            found = readout.evaluate(settings.sizes, self.now.trainable, self.fit, self._validation)
            values |= {f"{kind}/{name}": value for kind, read in found.items() for name, value in read.items()}
            seconds, core_seconds = self.spent_time()
            read = ", ".join(f"{name} {value:.3f}" for name, value in found["features"].items())
            self._progress.notice(f"step {self.done}, {seconds:.0f} s, {core_seconds:.0f} core-s: {read}")
        if values:
            seconds, core_seconds = self.spent_time()
            self.log.write(self.done, values | {"seconds": seconds, "core_seconds": core_seconds})

    def _save(self) -> None:
        seconds, core_seconds = self.spent_time()
        position = {"seconds": seconds, "core_seconds": core_seconds, "unreported": self._unreported}
        self._checkpoints.save(self.done, self.now, position)
