"""The loop of the trainers of small networks: one process, resumable, within a budget of time. Knows no network and no data.

OUT/config.json holds the settings, OUT/metrics.jsonl the metrics, OUT/checkpoints the states. The batch of a step must
depend on the number of the step alone: then a resumed run is bit-equal to one that was not interrupted.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict

from itjax.disk import output_errors, write_text
from itjax.errors import UserError
from itjax.input_files import read_json
from itjax.progress import Progress
from itjax.training.checkpoints import RunCheckpoints
from itjax.training.config import Checkpoints, Training
from itjax.training.metrics import MetricLog
from itjax.training.preemption import Preemption
from itjax.training.run import End, stopped_by
from itjax.training.run_folder import FILE, locked
from itjax.training.state import TrainState

Metrics = dict[str, float]
Step = Callable[[TrainState, int], tuple[TrainState, Metrics]]  # the state before, and the number of finished steps


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


class Ended(NamedTuple):
    """How a run ended: `end` is DONE, PREEMPTED (by SIGTERM, or the minutes are over) or INTERRUPTED.

    `core_seconds`: processor time of all cores and all calls, without the steps that a kill lost.
    """

    end: End
    state: TrainState
    core_seconds: float


def run(
    plan: Plan,
    settings: dict[str, Any],
    initial: Callable[[], TrainState],
    step: Step,
    measure: Callable[[TrainState], Metrics],
    progress: Progress,
) -> Ended:
    """Starts or continues the run in `plan.out` until its last step, a signal, or the end of the minutes.

    `settings`: everything that determines the result, as JSON; a run continues only with the same.

    Raises:
        UserError: If the folder is in use or holds a run with other settings, or the loss is not finite.
        OutputError: If a file cannot be written.
    """
    with ExitStack() as stack:
        preemption = stack.enter_context(Preemption())
        stack.enter_context(locked(plan.out))
        create_or_check(plan.out, settings)
        kept = Training(run=str(plan.out), checkpoints=Checkpoints(keep=2))
        checkpoints = stack.enter_context(RunCheckpoints(kept))
        state, before, unreported = _begin(checkpoints, initial(), progress)
        done = int(state.step)
        log = stack.enter_context(MetricLog(plan.out, done))
        bar = stack.enter_context(progress.bar(plan.steps, "step", done))
        began, cpu = time.monotonic(), time.process_time()
        spent = lambda: before + time.process_time() - cpu
        over = lambda: plan.minutes is not None and time.monotonic() - began > 60 * plan.minutes
        while done < plan.steps and not preemption.reached(done) and not over():
            state, metrics = step(state, done)
            done += 1
            unreported.append({name: float(value) for name, value in metrics.items()})
            _check_finite(unreported[-1]["loss"], done, plan)
            bar.advance()
            if done % plan.log_every == 0 or done == plan.steps:
                log.write(done, _mean(unreported) | {"core_seconds": spent()})
                bar.describe(f"loss {unreported[-1]['loss']:.4g}")
                unreported.clear()
            if done % plan.measure_every == 0 or done == plan.steps:
                measured = measure(state)
                log.write(done, measured | {"core_seconds": spent()})
                progress.notice(f"step {done}: " + ", ".join(f"{name} {value:.4g}" for name, value in measured.items()))
            if done % plan.save_every == 0 or done == plan.steps:
                checkpoints.save(done, state, {"core_seconds": spent(), "unreported": unreported})
        checkpoints.save(done, state, {"core_seconds": spent(), "unreported": unreported})
        checkpoints.wait()
    if done < plan.steps:
        progress.notice(f"step {done} of {plan.steps} is saved; run the same command to continue")
    return Ended(End.DONE if done == plan.steps else stopped_by(preemption), state, spent())


def create_or_check(folder: Path, settings: dict[str, Any]) -> None:
    """Writes config.json into a new run's folder, or compares it with that of the existing run.

    Raises:
        UserError: If settings differ (lists each), or the existing file cannot be read.
        OutputError: If the file cannot be written.
    """
    path, current = folder / FILE, json.loads(json.dumps(settings))
    if not path.exists():
        with output_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
        return write_text(path, json.dumps(current, indent=1) + "\n")
    try:
        stored = flatten_dict(read_json(path), sep=".")
    except (UserError, AttributeError, TypeError, AssertionError) as error:
        raise UserError(f"{path} is not the configuration of a run ({error}): choose another --out folder") from error
    new = flatten_dict(current, sep=".")
    differing = [key for key in sorted(stored.keys() | new.keys()) if stored.get(key) != new.get(key)]
    if differing:
        lines = "".join(f"\n  {key}: was {stored.get(key)}, now {new.get(key)}" for key in differing)
        raise UserError(f"{folder} holds a run with other settings. Use the same, or another --out folder:{lines}")
    return None


def _begin(
    checkpoints: RunCheckpoints, state: TrainState, progress: Progress
) -> tuple[TrainState, float, list[dict[str, float]]]:
    """The state to start from, the core-seconds so far, and the metrics that were not yet reported."""
    last = checkpoints.last()
    if last is None:
        return state, 0.0, []
    place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    restored, position = checkpoints.restore(last, jax.tree.map(place, state))
    progress.notice(f"resuming after step {last}")
    return restored, position["core_seconds"], position["unreported"]


def _mean(steps: list[dict[str, float]]) -> Metrics:
    return {name: math.fsum(each[name] for each in steps) / len(steps) for name in steps[0]}


def _check_finite(loss: float, done: int, plan: Plan) -> None:
    if not math.isfinite(loss):
        raise UserError(
            f"{plan.out}: the loss of step {done} is {loss}. The last checkpoint is from before; a lower learning rate, in "
            "another --out folder, may help."
        )
