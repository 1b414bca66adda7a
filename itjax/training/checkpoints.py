"""Checkpoints of a run: written asynchronously and atomically; a run resumes from the last complete one."""

import contextlib
import copy
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from itjax.disk import output_errors
from itjax.errors import OutputError, UserError
from itjax.orbax_reports import silenced
from itjax.training.config import Training
from itjax.training.state import TrainState, as_tree, from_tree

FOLDER = "checkpoints"


def folder_of(settings: Training) -> epath.Path:
    """The folder of a run's checkpoints: in the run's folder, or the configured one, which may be in a bucket."""
    chosen = settings.checkpoints.folder
    if "://" in chosen:
        return epath.Path(chosen)
    return epath.Path(chosen or epath.Path(settings.run) / FOLDER).resolve()


def last_step(folder: epath.Path) -> int | None:
    """The step of the last complete checkpoint in a folder; None if it has none, or does not exist."""
    return max(ocp.utils.checkpoint_steps(folder), default=None) if folder.is_dir() else None


def check_shared(folder: epath.Path) -> None:
    """Checks that all processes see the same checkpoints in `folder`, which the first one creates.

    Otherwise some would restore one and wait forever for the others, which start over.

    Raises:
        UserError: If they do not; in all processes.
        OutputError: If the folder cannot be created.
    """
    if jax.process_count() == 1:
        return
    if jax.process_index() == 0:
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    # nobody looks before it is there: a network file system may remember for a minute that it was not
    multihost_utils.sync_global_devices("checkpoint folder")
    last = last_step(folder)
    seen = multihost_utils.process_allgather(np.asarray([folder.exists(), -1 if last is None else last], np.int32)).tolist()
    if any(other != seen[0] for other in seen):
        told = ["no such folder" if not exists else "none" if last < 0 else f"step {last}" for exists, last in seen]
        raise UserError(
            f"{folder} must be on a file system that all processes share, or gs://, but the last checkpoint there is, as "
            f"seen by process {', '.join(f'{index}: {what}' for index, what in enumerate(told))}"
        )


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Always False: the run checks for preemption itself.

        Orbax would check from a thread of a single process and with the number of a finished step, but the processes use
        these numbers to agree on the last step.
        """
        return False


class RunCheckpoints:
    """The checkpoints of a run, FOLDER/<step>. All processes must call every method together.

    If the `with` block ends with an error, a pending write is still completed, but only with a single process: with several,
    the others may not know of the error.
    """

    def __init__(self, training: Training):
        self._silence = contextlib.ExitStack()
        self._silence.enter_context(silenced())
        settings, self.folder = training.checkpoints, folder_of(training)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=settings.keep,
            keep_period=settings.keep_every or None,
            enable_async_checkpointing=True,
            # else the threads that wait for a folder which cannot be made hold the process for five minutes at its end
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            cleanup_tmp_directories=True,  # a partial checkpoint left by a kill can be larger than the free space
        )
        with self._errors("opened"):
            self._manager = _Manager(self.folder, options=options, item_names=("state", "data"))

    def last(self) -> int | None:
        """The step of the last complete checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, position: dict[str, Any]) -> None:
        """Starts writing. The arrays are copied off the devices before this returns, so the next step may run.

        Raises:
            OutputError: If this checkpoint or the previous one could not be written; names the last complete step.
        """
        if self.last() == step:
            return
        # a copy, because a thread writes it while the caller's lists grow
        position = copy.deepcopy(position)
        items = ocp.args.Composite(state=ocp.args.StandardSave(as_tree(state)), data=ocp.args.JsonSave(position))
        with self._errors("written"):
            self._manager.save(step, args=items, force=True)

    def wait(self) -> None:
        """Waits until the pending checkpoint is on the disk.

        Raises:
            OutputError: As in `save`.
        """
        with self._errors("written"):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def restore(self, step: int, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Restores the state, each leaf directly onto its shards, and the position in the data.

        Raises:
            UserError: If the checkpoint is damaged or has other shapes.
        """
        items = ocp.args.Composite(state=ocp.args.StandardRestore(as_tree(abstract)), data=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=items)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"{self.folder / str(step)} cannot be read ({error}). Remove that folder to "
                "continue from the checkpoint before it."
            ) from error
        return from_tree(restored["state"]), restored["data"]

    def __enter__(self) -> "RunCheckpoints":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
            self._silence.close()
        elif jax.process_count() == 1:
            with contextlib.suppress(OutputError):  # the error that ended the block is reported instead
                self.close()

    def close(self) -> None:
        """Waits until the pending checkpoint is on the disk, and ends the writing threads.

        Raises:
            OutputError: As in `save`.
        """
        with self._errors("written"):
            self._manager.close()

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:  # a full disk raises any of these, from another thread
            manager = getattr(self, "_manager", None)
            last = None if manager is None else last_step(self.folder)
            last_complete = "there is none yet" if last is None else f"the last complete one is of step {last}"
            raise OutputError(
                f"a checkpoint in {self.folder} could not be {action}: {error}. Only the steps since the last one are lost: "
                f"{last_complete}. Free some space and run the same command again."
            ) from error
