"""The checkpoints of a run: written while training goes on, whole or not there; the last whole one is found by itself."""

import contextlib
import copy
import logging
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from itjax.errors import OutputError, UserError
from itjax.training.config import Training
from itjax.training.state import TrainState, as_tree, from_tree

FOLDER = "checkpoints"


def folder_of(settings: Training) -> epath.Path:
    """Where the checkpoints of a run are: its own folder, or the one that is named, which may be in a bucket."""
    chosen = settings.checkpoints.folder
    if "://" in chosen:
        return epath.Path(chosen)
    return epath.Path(chosen or epath.Path(settings.run) / FOLDER).resolve()


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """No: the run asks itself.

        Orbax would ask from a thread of one process and with the number of a step that is over, and by these numbers the
        processes agree on where to end.
        """
        return False


class RunCheckpoints:
    """The checkpoints of a run, FOLDER/<step>. Every method is called by all processes together.

    Where its block ends with an error, what is being written is still finished; but not by several processes, as the
    others may know nothing of it.
    """

    def __init__(self, training: Training):
        for name in ("absl", "asyncio"):  # errors are raised here, and told in a sentence instead of pages
            logging.getLogger(name).setLevel(logging.CRITICAL)
        settings, self.folder = training.checkpoints, folder_of(training)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=settings.keep,
            keep_period=settings.keep_every or None,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,  # what a kill left half written can be larger than what else is free
        )
        with self._errors("opened"):
            self._manager = _Manager(self.folder, options=options, item_names=("state", "data"))

    def last(self) -> int | None:
        """The step of the last whole checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, position: dict[str, Any]) -> None:
        """Begins to write; the arrays are copied off the devices before this returns, so the next step may go on.

        Raises:
            OutputError: which names the last whole step, if this or the checkpoint before it could not be written.
        """
        if self.last() == step:
            return
        # a copy: a thread writes it while the caller's lists grow
        position = copy.deepcopy(position)
        items = ocp.args.Composite(state=ocp.args.StandardSave(as_tree(state)), data=ocp.args.JsonSave(position))
        with self._errors("written"):
            self._manager.save(step, args=items, force=True)

    def wait(self) -> None:
        """Until what was begun is on the disk.

        Raises:
            OutputError: as `save` does.
        """
        with self._errors("written"):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def restore(self, step: int, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The state, each leaf straight onto its shards, and the data's position.

        Raises:
            UserError: where the checkpoint is damaged or of other shapes.
        """
        items = ocp.args.Composite(state=ocp.args.StandardRestore(as_tree(abstract)), data=ocp.args.JsonRestore())
        try:
            found = self._manager.restore(step, args=items)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"{self.folder / str(step)} cannot be read ({error}). Remove that folder, and the run goes on "
                "from the checkpoint before it."
            ) from error
        return from_tree(found["state"]), found["data"]

    def __enter__(self) -> "RunCheckpoints":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif jax.process_count() == 1:
            with contextlib.suppress(OutputError):  # the error that ended the block is told
                self.close()

    def close(self) -> None:
        """Waits until what was begun is on the disk, and ends the writing threads.

        Raises:
            OutputError: as `save` does.
        """
        with self._errors("written"):
            self._manager.close()

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:  # a full disk comes as any of them, from another thread
            manager = getattr(self, "_manager", None)
            last = None if manager is None else max(ocp.utils.checkpoint_steps(self.folder), default=None)
            kept = "there is none before it" if last is None else f"the last whole one is of step {last}"
            raise OutputError(
                f"a checkpoint in {self.folder} could not be {what}: {error}. Nothing is lost but the steps since: {kept}. "
                "Make room and start the same command again."
            ) from error
