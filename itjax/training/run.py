"""A training run: opening and checking it, the training loop, and saving it at the end."""

import contextlib
import signal
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
from itjax.terminal import INTERRUPTED
from itjax.training import data, examples, parameters, run_folder, state, step
from itjax.training.checkpoints import RunCheckpoints, check_shared, folder_of
from itjax.training.config import Training
from itjax.training.preemption import Preemption
from itjax.training.reporter import PendingStep, Reporter, TrainingRun, step_settings
from itjax.training.state import TrainState
from itjax.weights.sources import Weights


class End(Enum):
    """How a run ended. In all cases, its state was saved."""

    DONE = "done"
    PREEMPTED = "preempted"
    INTERRUPTED = "interrupted"


PREEMPTED = 75  # sysexits.h: temporary failure, try again
STATUS = {End.DONE: 0, End.PREEMPTED: PREEMPTED, End.INTERRUPTED: INTERRUPTED}  # exit statuses of training commands


def stopped_by(preemption: Preemption) -> End:
    """How a run ended that has steps left to do: by Ctrl-C, or else preempted."""
    return End.INTERRUPTED if preemption.signal == signal.SIGINT else End.PREEMPTED


def open_run(settings: Training, weights: Weights, progress: Progress = SILENT) -> TrainingRun:
    """Opens a run and checks it completely before any weights are read.

    Raises:
        UserError: if settings, dataset, weights and devices do not match.
    """
    dataset = records.open_dataset(settings.data)
    _check_sizes(dataset, weights, progress)
    decay_steps = settings.optimizer.decay_steps
    if 0 < decay_steps < settings.steps:
        progress.notice(
            f"warning: the learning rate is zero in the last {settings.steps - decay_steps} of {settings.steps} steps, as "
            f"--optimizer.decay-steps is {decay_steps}"
        )
    if settings.motion_frames >= dataset.layout.frame_num:
        raise UserError(
            f"motion-frames {settings.motion_frames}: must be less than the {dataset.layout.frame_num} frames of the "
            "dataset's chunks"
        )
    if settings.references.strategy == "FL2V" and not dataset.layout.ends:
        raise UserError(f"{dataset.folder} cannot be used with references.strategy FL2V: prepare it with --ends.")
    if settings.region_weight > 1 and not dataset.layout.regions:
        raise UserError(
            f"region-weight {settings.region_weight:g}: {dataset.folder} has no regions. Prepare it from videos with "
            "NAME.region.mp4 or NAME.region.png files."
        )
    trainable, frozen = parameters.abstract(weights.preset.networks.dit, settings.trained)
    mesh = mesh_of(settings, weights.preset.networks.dit.num_heads)
    data.check_batch(settings, mesh)
    data.process_group(mesh)
    # even if validation and samples are off: otherwise a run would train on different clips after they are switched off
    split = examples.split(dataset, settings.references, settings.reports.validation_clips)
    return TrainingRun(settings, weights, dataset, mesh, split, trainable, frozen, progress)


def mesh_of(settings: Training, heads: int) -> Mesh:
    """The mesh of all devices.

    Raises:
        UserError: if its sizes do not divide the attention heads or the devices.
    """
    ulysses, context, count = settings.mesh.ulysses, settings.mesh.context, len(jax.devices())
    if heads % ulysses:
        raise UserError(f"mesh.ulysses {ulysses} does not divide the {heads} attention heads")
    if count % (ulysses * context):
        raise UserError(f"mesh.ulysses {ulysses} times mesh.context {context} does not divide the {count} device(s)")
    return make_mesh(ulysses, context, heads=heads)


def _check_sizes(dataset: Dataset, weights: Weights, progress: Progress) -> None:
    dataset_sizes, checkpoint_sizes = dataset.preset.networks, weights.preset.networks
    for name in ("dit", "vae", "umt5", "clip", "wav2vec2"):
        old, new = vars(getattr(dataset_sizes, name)), vars(getattr(checkpoint_sizes, name))
        differing = [f"{name}.{key} {old[key]} instead of {new[key]}" for key in old if old[key] != new[key]]
        if differing:
            raise UserError(
                f"{dataset.folder} was prepared with networks of different sizes (preset {dataset.preset.name}) than "
                f"those of the checkpoint (preset {weights.preset.name}): {'; '.join(differing)}"
            )
    if dataset.checkpoint != weights.encoders:
        progress.notice(f"warning: {dataset.folder} was prepared with a different checkpoint than the one to be trained")


def train(settings: Training, weights: Weights, progress: Progress = SILENT) -> End:
    """Starts or resumes the run in `settings.run`. With several processes, only the first one reports to `progress`.

    Raises:
        UserError: if settings, dataset, weights or run folder are invalid, the processes do not share the folder of the
            checkpoints, or the loss is not finite; in the latter case the last good state is saved first.
        OutputError: if a file cannot be written.
    """
    folder = Path(settings.run)
    with contextlib.ExitStack() as stack:
        # before anything else, so that signals are also handled during startup
        preemption = stack.enter_context(Preemption())
        run = open_run(settings, weights, progress if jax.process_index() == 0 else SILENT)
        if jax.process_index() == 0:  # if the folder is rejected, the other processes end with this one
            stack.enter_context(run_folder.locked(folder))
            run_folder.create_or_check(settings, weights)
        check_shared(folder_of(settings))
        stack.enter_context(jax.set_mesh(run.mesh))
        stack.enter_context(exact_float32())
        checkpoints = stack.enter_context(RunCheckpoints(settings))
        run.progress.notice(_summary(run))
        return _train(run, checkpoints, preemption)


def _summary(run: TrainingRun) -> str:
    settings, split = run.settings, run.split
    count = lambda *trees: sum(leaf.size for leaf in jax.tree.leaves(trees)) / 1e6
    shape = " x ".join(f"{size} {axis}" for axis, size in run.mesh.shape.items())
    total = sum(len(bucket.num_frames) for bucket in run.dataset.buckets)
    skipped = ""
    if split.too_short:
        skipped = f"{split.too_short} of {total} clips are too short for {settings.references.strategy} and are skipped; "
    return (
        f"{settings.run}: {skipped}training on {sum(map(len, split.train))} clips of {sum(map(bool, split.train))} size(s), "
        f"{len(split.held_out)} held out; {count(run.trainable):.3g} of "
        f"{count(run.trainable, run.frozen):.3g} million parameters "
        f"trained; {run.mesh.size} device(s): {shape}"
    )


def begin(run: TrainingRun, checkpoints: RunCheckpoints, stream: data.Stream) -> tuple[TrainState, list[dict[str, Any]]]:
    """The state to start from, and the metrics of steps that were not yet reported.

    Restores the last complete checkpoint, including the position of the stream; without one, makes the initial state.
    """
    settings, sizes = run.settings, run.weights.preset.networks.dit
    last = checkpoints.last()
    if last is None:
        trainable = parameters.read_trainable(run.weights, sizes, settings.trained, run.mesh, settings.seed)
        return state.sharded_initial_state(trainable, settings.optimizer, run.mesh), []
    restored, position = checkpoints.restore(last, state.abstract_state(run.trainable, settings.optimizer, run.mesh))
    stream.restore(position["stream"])
    run.progress.notice(f"resuming after step {last}")
    return restored, position["unreported"]


def _train(run: TrainingRun, checkpoints: RunCheckpoints, preemption: Preemption) -> End:
    settings, sizes = run.settings, run.weights.preset.networks.dit
    stream = data.Stream(run.dataset, settings, run.split.train, run.mesh)
    train_state, unreported = begin(run, checkpoints, stream)
    frozen = parameters.read_frozen(run.weights, sizes, settings.trained, run.mesh, jnp.dtype(settings.dtype))
    null_text = jnp.asarray(records.null_prompts(run.dataset)[0])
    with Reporter(run, frozen, null_text, int(train_state.step), unreported) as reporter:
        loop = TrainLoop(run, checkpoints, stream, reporter, train_state)
        while loop.done < settings.steps and not preemption.reached(loop.done):
            with jax.transfer_guard("disallow"):  # no implicit transfers between host and device
                loop.dispatch(frozen, null_text)
            saves = loop.done % settings.checkpoints.every == 0
            # one step late, so that the devices already have the next step while the host waits for this one's metrics
            loop.collect(0 if saves or reporter.due(loop.done) else 1)
            reporter.report(loop.done, loop.now)
            if saves:
                loop.save()
            reporter.sample(loop.done, loop.now)
        loop.collect()
        loop.save()
        checkpoints.wait()
    if loop.done < settings.steps:
        run.progress.notice(f"step {loop.done} is saved; run the same command to continue")
        return stopped_by(preemption)
    run.progress.notice(f"finished {loop.done} steps: {settings.run}")
    return End.DONE


class TrainLoop:
    """The state after `done` steps, the last of which may still be running: `collect` waits for their metrics."""

    def __init__(
        self, run: TrainingRun, checkpoints: RunCheckpoints, stream: data.Stream, reporter: Reporter, now: TrainState
    ):
        self.now, self.done = now, int(now.step)
        self._run, self._checkpoints, self._stream, self._reporter = run, checkpoints, stream, reporter
        self._pending: deque[PendingStep] = deque()
        self._good = jnp.asarray(True)
        self._step = step.compile_step(step_settings(run.settings), run.weights.preset.networks.dit, now, run.mesh)

    def dispatch(self, frozen: dict, null_text: jax.Array) -> None:
        """Starts the next step on the devices.

        Raises:
            UserError: if its batch cannot be read; with a single process, the state is saved first.
        """
        position = self._stream.state()
        try:
            batch, names = next(self._stream)
        except UserError as error:
            self.collect()
            if jax.process_count() > 1:  # the others do not know of the error, and saving needs all processes
                raise
            self.save()
            self._checkpoints.wait()
            raise UserError(f"{error} The state after step {self.done} is saved.") from error
        with self._reporter.compiling(batch):
            self.now, report = self._step(self.now, self._good, frozen, batch, null_text)
        self._good, self.done = report.good, self.done + 1
        _, frames, height, width, _ = batch.latents.shape
        latent, persons = (frames, height, width), batch.speech.shape[1]
        self._pending.append(PendingStep(self.done, position, names, latent, persons, report))

    def collect(self, max_pending: int = 0) -> None:
        """Waits for the metrics of all steps except the last `max_pending`.

        Raises:
            UserError: if the loss or gradients are not finite; the state before that step is saved first.
        """
        while len(self._pending) > max_pending:
            pending = self._pending.popleft()
            if not jax.device_get(pending.report.good):
                self._stop(pending)
            self._reporter.add(pending)

    def save(self) -> None:
        """Starts to write the state. All steps must have been collected."""
        with self._reporter.meter.pause():
            self._save(self.done, self._stream.state())

    def _save(self, step: int, position: dict[str, Any]) -> None:
        self._checkpoints.save(step, self.now, {"stream": position, "unreported": self._reporter.unreported})

    def _stop(self, pending: PendingStep) -> NoReturn:
        before = pending.number - 1
        self._save(before, pending.position)  # neither this step nor later ones changed the state
        self._checkpoints.wait()
        for name in pending.names:
            if name.startswith(data.UNREADABLE):
                raise UserError(f"{name.removeprefix(data.UNREADABLE)} The state after step {before} is saved.")
        loss, norm = float(pending.report.loss), float(pending.report.gradient_norm)
        raise UserError(
            f"step {pending.number}: the loss is {loss} and the gradient norm is {norm}. Clips in its batch: "
            f"{', '.join(pending.names)}. The state after step {before} is saved. A lower optimizer.learning-rate, dtype "
            "float32, or removing a damaged clip may help; run the same command to try again."
        )
