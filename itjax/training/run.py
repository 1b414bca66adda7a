"""A training run from its folder's first file to its last checkpoint: opening, the loop, and how it ends."""

import contextlib
import signal
import warnings
from collections import deque
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from itjax import records
from itjax.errors import UserError
from itjax.parallel.sharding import make_mesh
from itjax.pipeline.process import exact_float32
from itjax.progress import SILENT, Progress
from itjax.records import Dataset
from itjax.training import data, parameters, run_folder, state, step
from itjax.training.checkpoints import RunCheckpoints
from itjax.training.config import Training
from itjax.training.preemption import Preemption
from itjax.training.reporter import PendingStep, Reporter, TrainingRun, step_settings
from itjax.training.state import TrainState
from itjax.weights.sources import Weights


class End(Enum):
    """How a run ended; it has saved in any case."""

    DONE = "done"
    PREEMPTED = "preempted"
    INTERRUPTED = "interrupted"


def open_run(settings: Training, weights: Weights, progress: Progress = SILENT) -> TrainingRun:
    """Everything that can be wrong with a run is found here, before a weight is read.

    Raises:
        UserError: where settings, dataset, weights and devices do not fit together.
    """
    dataset = records.open_dataset(settings.data)
    _check_sizes(dataset, weights)
    if settings.motion_frames >= dataset.layout.frame_num:
        raise UserError(
            f"motion-frames {settings.motion_frames}: the dataset's chunks have {dataset.layout.frame_num} frames"
        )
    if settings.references.strategy == "FL2V" and not dataset.layout.ends:
        raise UserError(f"{dataset.folder}: references.strategy FL2V needs chunks' ends. Prepare the dataset with --ends.")
    if settings.region_weight > 1 and not dataset.layout.regions:
        raise UserError(
            f"region-weight {settings.region_weight:g}: {dataset.folder} has no regions. Prepare it from videos with "
            "NAME.region.mp4 or NAME.region.png beside them."
        )
    trains, frozen = parameters.abstract(weights.preset.networks.dit, settings.trained)
    mesh = mesh_of(settings, weights.preset.networks.dit.num_heads)
    data.check_batch(settings, mesh)
    data.readers(mesh)
    # whether they are looked at or not: else a run would train on other clips once its reports are switched off
    split = data.split(dataset, settings.references, settings.reports.validation_clips)
    return TrainingRun(settings, weights, dataset, mesh, split, trains, frozen, progress)


def mesh_of(settings: Training, heads: int) -> Mesh:
    """The mesh of all devices.

    Raises:
        UserError: where the settings do not fit the heads or the devices.
    """
    ulysses, context, count = settings.mesh.ulysses, settings.mesh.context, len(jax.devices())
    if heads % ulysses:
        raise UserError(f"mesh.ulysses {ulysses} does not divide the {heads} attention heads")
    if count % (ulysses * context):
        raise UserError(f"mesh.ulysses {ulysses} times mesh.context {context} does not divide the {count} device(s)")
    return make_mesh(ulysses, context, heads=heads)


def _check_sizes(dataset: Dataset, weights: Weights) -> None:
    made, given = dataset.preset.networks, weights.preset.networks
    for name in ("dit", "vae", "umt5", "clip", "wav2vec2"):
        before, now = vars(getattr(made, name)), vars(getattr(given, name))
        differing = [f"{name}.{key} {before[key]} there, {now[key]} here" for key in before if before[key] != now[key]]
        if differing:
            raise UserError(
                f"{dataset.folder} was prepared with networks of other sizes ({weights.preset.name} is given, "
                f"{dataset.preset.name} made it): {'; '.join(differing)}"
            )
    if dataset.checkpoint != weights.encoders:
        warnings.warn(f"{dataset.folder} was prepared with another checkpoint than the one that trains", stacklevel=3)


def train(settings: Training, weights: Weights, progress: Progress = SILENT) -> End:
    """Trains, or goes on with, the run in `settings.run`. Of several processes the first alone reports to `progress`.

    Raises:
        UserError: where the run is not as it must be; also where the loss is no number: the last good state is saved first.
        OutputError: where the disk refuses.
    """
    folder = Path(settings.run)
    with contextlib.ExitStack() as stack:
        preemption = stack.enter_context(Preemption())  # from here on: a run that has just begun can be asked to end too
        run = open_run(settings, weights, progress if jax.process_index() == 0 else SILENT)
        if jax.process_index() == 0:  # the others end with this one where the folder is refused
            stack.enter_context(run_folder.locked(folder))
            run_folder.create_or_check(settings, weights)
        stack.enter_context(jax.set_mesh(run.mesh))
        stack.enter_context(exact_float32(settings.dtype))
        checkpoints = stack.enter_context(RunCheckpoints(settings))
        run.progress.notice(_about(run))
        return _train(run, checkpoints, preemption)


def _about(run: TrainingRun) -> str:
    settings, split = run.settings, run.split
    count = lambda *trees: sum(leaf.size for leaf in jax.tree.leaves(trees)) / 1e6
    shape = " x ".join(f"{size} {axis}" for axis, size in run.mesh.shape.items())
    total = sum(len(bucket.num_frames) for bucket in run.dataset.buckets)
    left_out = ""
    if split.too_short:
        left_out = f"{split.too_short} of {total} clips are too short for {settings.references.strategy} and are left out; "
    return (
        f"{settings.run}: {left_out}{sum(map(len, split.train))} clips of {sum(map(bool, split.train))} size(s) to train "
        f"on, {len(split.held_out)} held out; {count(run.trains):.3g} of "
        f"{count(run.trains, run.frozen):.3g} million parameters "
        f"train; {run.mesh.size} device(s): {shape}"
    )


def begin(run: TrainingRun, checkpoints: RunCheckpoints, stream: data.Stream) -> tuple[TrainState, list[dict[str, Any]]]:
    """The state that a run starts from, and numbers that were not yet reported.

    The state is that of the last whole checkpoint, with the stream put where it stood; or the one before the first step.
    """
    settings, sizes = run.settings, run.weights.preset.networks.dit
    last = checkpoints.last()
    if last is None:
        trainable = parameters.read_trainable(run.weights, sizes, settings.trained, run.mesh, settings.seed)
        return state.sharded_initial_state(trainable, settings.optimizer, run.mesh), []
    found, position = checkpoints.restore(last, state.abstract_state(run.trains, settings.optimizer, run.mesh))
    stream.restore(position["stream"])
    run.progress.notice(f"going on after step {last}")
    return found, position["unreported"]


def _train(run: TrainingRun, checkpoints: RunCheckpoints, preemption: Preemption) -> End:
    settings, sizes = run.settings, run.weights.preset.networks.dit
    stream = data.Stream(run.dataset, settings, run.split.train, run.mesh)
    now, unreported = begin(run, checkpoints, stream)
    frozen = parameters.read_frozen(run.weights, sizes, settings.trained, run.mesh, jnp.dtype(settings.dtype))
    null_text = jnp.asarray(records.null_prompts(run.dataset)[0])
    with Reporter(run, frozen, null_text, int(now.step), unreported) as reporter:
        loop = TrainLoop(run, checkpoints, stream, reporter, now)
        while loop.done < settings.steps and not preemption.reached(loop.done):
            with jax.transfer_guard("disallow"):  # nothing goes to or from a device unseen
                loop.dispatch(frozen, null_text)
            saves = loop.done % settings.checkpoints.every == 0
            # one step behind, so that the devices always have the next one before this one's numbers are asked for
            loop.collect(0 if saves or reporter.due(loop.done) else 1)
            reporter.report(loop.done, loop.now)
            if saves:
                loop.save()
            reporter.sample(loop.done, loop.now)
        loop.collect()
        loop.save()
        checkpoints.wait()
    if loop.done < settings.steps:
        run.progress.notice(f"step {loop.done} is saved, the same command goes on from there")
        return End.INTERRUPTED if preemption.signal == signal.SIGINT else End.PREEMPTED
    run.progress.notice(f"{loop.done} steps done: {settings.run}")
    return End.DONE


class TrainLoop:
    """The state after `done` steps. The last few may still be running on the devices: `collect` waits for their numbers."""

    def __init__(
        self, run: TrainingRun, checkpoints: RunCheckpoints, stream: data.Stream, reporter: Reporter, now: TrainState
    ):
        self.now, self.done = now, int(now.step)
        self._run, self._checkpoints, self._stream, self._reporter = run, checkpoints, stream, reporter
        self._pending: deque[PendingStep] = deque()
        self._good = jnp.asarray(True)
        self._step = step.compile_step(step_settings(run.settings), run.weights.preset.networks.dit, now, run.mesh)

    def dispatch(self, frozen: dict, null_text: jax.Array) -> None:
        """Gives the next step to the devices.

        Raises:
            UserError: where its batch cannot be read; the state is saved first, unless there are several processes.
        """
        position = self._stream.state()
        try:
            batch, names = next(self._stream)
        except UserError as error:
            self.collect()
            if jax.process_count() > 1:  # no clip can be read: the others know nothing of it, and a checkpoint needs all
                raise
            self.save()
            self._checkpoints.wait()
            raise UserError(f"{error} The state is saved as of step {self.done}.") from error
        with self._reporter.compiling(batch):
            self.now, report = self._step(self.now, self._good, frozen, batch, null_text)
        self._good, self.done = report.good, self.done + 1
        _, frames, height, width, _ = batch.latents.shape
        latent, persons = (frames, height, width), batch.speech.shape[1]
        self._pending.append(PendingStep(self.done, position, names, latent, persons, report))

    def collect(self, most: int = 0) -> None:
        """Takes the numbers of all steps but the last `most`.

        Raises:
            UserError: where they are no numbers; the state before that step is saved first.
        """
        while len(self._pending) > most:
            pending = self._pending.popleft()
            if not jax.device_get(pending.report.good):
                self._stop(pending)
            self._reporter.add(pending)

    def save(self) -> None:
        """Begins to write the state. All steps must have been looked at."""
        with self._reporter.meter.pause():
            self._save(self.done, self._stream.state())

    def _save(self, step: int, position: dict[str, Any]) -> None:
        self._checkpoints.save(step, self.now, {"stream": position, "unreported": self._reporter.unreported})

    def _stop(self, pending: PendingStep) -> NoReturn:
        before = pending.number - 1
        self._save(before, pending.position)  # the step left the state as it was, and so did what came after it
        self._checkpoints.wait()
        for name in pending.names:
            if name.startswith(data.UNREADABLE):
                raise UserError(f"{name.removeprefix(data.UNREADABLE)} The state is saved as of step {before}.")
        loss, norm = float(pending.report.loss), float(pending.report.gradient_norm)
        raise UserError(
            f"step {pending.number}: the loss is {loss} and the gradient's norm {norm}. Its batch: "
            f"{', '.join(pending.names)}. The state before it is saved as step {before}. A lower optimizer.learning-rate, "
            "dtype float32, or leaving out a damaged clip may help; the same command tries again."
        )
