"""The loop of the trainers of small networks: one process, resumable, within a budget of time. Knows no network and no data.

OUT/config.json holds the settings, OUT/metrics.jsonl the metrics, OUT/checkpoints the states. The batch of a step must
depend on the number of the step alone: then a resumed run is bit-equal to one that was not interrupted.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from etils import epath
from jaxtyping import Array

from itjax.errors import UserError
from itjax.progress import Progress
from itjax.training import run_folder
from itjax.training.checkpoints import RunCheckpoints
from itjax.training.config import Checkpoints, Training
from itjax.training.metrics import MetricLog
from itjax.training.preemption import Preemption
from itjax.training.run import End, stopped_by
from itjax.training.state import TrainState

Metrics = dict[str, float]
# of the state before, and the number of finished steps
Step = Callable[[TrainState, int], tuple[TrainState, Mapping[str, float | Array]]]
MUST_BE_FINITE = ("loss", "gradient_norm")


@dataclass(frozen=True)
class Plan:
    """How long a run is, and how often it reports.

    Attributes:
        out: Folder of the run.
        steps: Steps in total.
        minutes: This call ends after so many minutes, and the same command continues; None: no limit.
        log_every: Steps between lines of metrics: means over the steps since the last line.
        measure_every: Steps between measurements on held-out data, which the last step has, too.
        save_every: Steps between checkpoints.
    """

    out: Path
    steps: int
    minutes: float | None = None
    log_every: int = 20
    measure_every: int = 500
    save_every: int = 250

    def __post_init__(self):
        if self.steps < 1:
            raise UserError(f"--steps {self.steps}: must be at least 1")
        if self.minutes is not None and not self.minutes > 0:
            raise UserError(f"--minutes {self.minutes:g}: must be above 0")


class Ended(NamedTuple):
    """How a run ended: `end` is DONE, PREEMPTED (by SIGTERM, or the minutes are over) or INTERRUPTED.

    `seconds`, and `core_seconds`, processor time of all cores: of all calls, without the steps that a kill lost.
    """

    end: End
    state: TrainState
    seconds: float
    core_seconds: float


def run(
    plan: Plan,
    settings: dict[str, Any],
    initial: Callable[[], TrainState],
    step: Step,
    measure: Callable[[TrainState], Metrics],
    progress: Progress,
    elsewhere: Callable[[], float] = lambda: 0.0,
) -> Ended:
    """Starts or continues the run in `plan.out` until its last step, a signal, or the end of the minutes.

    A step's metrics may be arrays on the device: they are read when they are reported or saved, so that steps can be given
    to the device ahead.

    Args:
        plan: How long the run is.
        settings: Everything that determines the result, as JSON; a run continues only with the same.
        initial: The state before the first step.
        step: One step.
        measure: Metrics on held-out data.
        progress: Is told the metrics.
        elsewhere: Core-seconds that other processes have spent for the run in this call.

    Raises:
        UserError: If the folder is in use or holds a run with other settings, or the loss is not finite.
        OutputError: If a file cannot be written.
    """
    with ExitStack() as stack:
        preemption = stack.enter_context(Preemption())
        stack.enter_context(run_folder.locked(plan.out))
        create_or_check(plan.out, settings)
        kept = Training(run=str(plan.out), checkpoints=Checkpoints(keep=2))
        checkpoints = stack.enter_context(RunCheckpoints(kept))
        state, before = _begin(checkpoints, initial(), progress)
        done, unreported = int(state.step), before["unreported"]
        log = stack.enter_context(MetricLog(plan.out, done))
        bar = stack.enter_context(progress.bar(plan.steps, "step", done))
        clock, began = _Clock(before, elsewhere), time.monotonic()
        over = lambda: plan.minutes is not None and time.monotonic() - began > 60 * plan.minutes
        due = lambda every: done % every == 0 or done == plan.steps
        while done < plan.steps and not preemption.reached(done) and not over():
            state, metrics = step(state, done)
            done += 1
            unreported.append(metrics)
            bar.advance()
            if due(plan.log_every):
                mean = _mean(_fetched(unreported, done, plan))
                log.write(done, mean | clock.read())
                bar.describe(f"loss {mean['loss']:.4g}")
                unreported.clear()
            if due(plan.measure_every):
                measured = measure(state)
                log.write(done, measured | clock.read())
                progress.notice(f"step {done}: " + ", ".join(f"{name} {value:.4g}" for name, value in measured.items()))
            if due(plan.save_every):
                unreported = _fetched(unreported, done, plan)
                checkpoints.save(done, state, clock.read() | {"unreported": unreported})
        unreported = _fetched(unreported, done, plan)
        checkpoints.save(done, state, clock.read() | {"unreported": unreported})
        checkpoints.wait()
    if done < plan.steps:
        progress.notice(f"step {done} of {plan.steps} is saved; run the same command to continue")
    return Ended(End.DONE if done == plan.steps else stopped_by(preemption), state, **clock.read())


def create_or_check(folder: Path, settings: dict[str, Any]) -> None:
    """Writes config.json into a new run's folder, or compares it with that of the existing run.

    Raises:
        UserError: If settings differ (lists each), or the existing file cannot be read.
        OutputError: If the file cannot be written.
    """
    # in a group of their own: no name is among those that may change
    content = {"version": run_folder.VERSION, "identity": "small", "training": {"small": settings}}
    run_folder.write_or_compare(epath.Path(folder), run_folder.as_stored(content), "--out")


class _Clock:
    """Seconds, and core-seconds of this and of other processes, with those of earlier calls."""

    def __init__(self, before: dict[str, Any], elsewhere: Callable[[], float]):
        self._seconds = before["seconds"] - time.monotonic()
        self._core_seconds, self._elsewhere = before["core_seconds"] - time.process_time(), elsewhere

    def read(self) -> Metrics:
        core_seconds = self._core_seconds + time.process_time() + self._elsewhere()
        return {"seconds": self._seconds + time.monotonic(), "core_seconds": core_seconds}


def _begin(checkpoints: RunCheckpoints, state: TrainState, progress: Progress) -> tuple[TrainState, dict[str, Any]]:
    """The state to start from, and what was spent and not yet reported until then."""
    last = checkpoints.last()
    if last is None:
        # bound to their device, as restored ones are: else a process that resumes its own run compiles the step again
        state = jax.tree.map(lambda leaf: jax.device_put(leaf, leaf.sharding), state)
        return state, {"seconds": 0.0, "core_seconds": 0.0, "unreported": []}
    place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    restored, position = checkpoints.restore(last, jax.tree.map(place, state))
    progress.notice(f"resuming after step {last}")
    return restored, position


def _fetched(unreported: list[Mapping[str, Any]], done: int, plan: Plan) -> list[Metrics]:
    """The metrics of the last steps until `done` as numbers of the host; waits for these steps."""
    steps = [{name: float(value) for name, value in each.items()} for each in jax.device_get(unreported)]
    for number, metrics in enumerate(steps, start=done - len(steps) + 1):
        for name in MUST_BE_FINITE:
            if not math.isfinite(metrics.get(name, 0.0)):
                raise UserError(
                    f"{plan.out}: the {name} of step {number} is {metrics[name]}. The last checkpoint is from before; a "
                    "lower learning rate, in another --out folder, may help."
                )
    return steps


def _mean(steps: list[Metrics]) -> Metrics:
    return {name: math.fsum(each[name] for each in steps) / len(steps) for name in steps[0]}
