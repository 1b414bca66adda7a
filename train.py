"""Trains InfiniteTalk: `python train.py --help`, `python train.py PRESET --help`, or see README.md."""

import os
import sys
import traceback
from pathlib import Path

import jax
import tyro

from configs import tiny
from configs.training import PRESETS
from itjax.errors import OutputError, UserError
from itjax.pipeline.process import prepare_jax
from itjax.training import made_up
from itjax.training.config import Processes, Training
from itjax.training.result import open_weights
from itjax.training.run import End, train

PREEMPTED = 75  # sysexits.h: temporary failure, try again
STATUS = {End.DONE: 0, End.PREEMPTED: PREEMPTED, End.INTERRUPTED: 130}


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to put right, 3 the disk refused, 75 preempted and saved, 130 interrupted."""
    try:
        settings = tyro.extras.overridable_config_cli(PRESETS, prog="train.py", description=__doc__, args=argv)
        prepare_jax(settings.dtype)
        if settings.made_up:
            settings = made_up.prepared(settings, tiny.PRESET)
        check_paths(settings)
        join(settings.processes)
        return STATUS[train(settings, open_weights(Path(settings.checkpoint), []))]
    except OutputError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 3
    except UserError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ntrain.py: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def check_paths(settings: Training) -> None:
    """Raises UserError for the folders that are not given: no preset can know them."""
    needed = {
        "--data DATASET (made by `python -m itjax.preparation`)": settings.data,
        "--checkpoint DIR (made by `python convert_weights.py`)": settings.checkpoint,
        "--run DIR (for what the run writes)": settings.run,
    }
    missing = [flag for flag, value in needed.items() if not value]
    if missing:
        raise UserError(f"give {', '.join(missing)}")


def join(processes: Processes) -> None:
    """Meets the other processes of the run, before JAX is asked for its devices. Raises UserError."""
    if not processes.cluster and not processes.count:
        return
    try:
        if processes.cluster:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(processes.coordinator, processes.count, processes.index)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"processes: they did not meet ({error})") from error
    if jax.default_backend() == "cpu":
        # on CPUs the first process alone finds programs there, and Gloo gives up on one that comes 30 seconds later
        jax.config.update("jax_enable_compilation_cache", False)


def leave(status: int) -> None:
    """Ends the process. With several of them, one that ends with an error must not wait for the others to say goodbye."""
    sys.stdout.flush()
    sys.stderr.flush()
    if status not in (0, PREEMPTED) and jax.distributed.is_initialized():
        os._exit(status)
    sys.exit(status)


def run() -> None:
    """`main` with the process's end. An error that nobody foresaw is told, and is an end too: not the interpreter's own,
    which would wait for the other processes."""
    try:
        status = main()
    except Exception:
        traceback.print_exc()
        why = ", or another process ended before this one: its own output says why" if jax.process_count() > 1 else ""
        print(f"train.py: an error{why}. The same command goes on from the last checkpoint.", file=sys.stderr)
        status = 1
    leave(status)


if __name__ == "__main__":
    run()
