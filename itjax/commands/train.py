"""`itjax train PRESET`, `python train.py PRESET`: trains InfiniteTalk. See `--help`, `PRESET --help`, or README.md."""

import os
import sys
import traceback
from pathlib import Path

import jax
import tyro

from itjax.configs import tiny
from itjax.configs.training import PRESETS
from itjax.errors import UserError
from itjax.pipeline.process import keep_compiled_programs
from itjax.terminal import INTERRUPTED, Terminal, run_command
from itjax.training import made_up
from itjax.training.config import Processes, Training
from itjax.training.result import open_weights
from itjax.training.run import End, train

PREEMPTED = 75  # sysexits.h: temporary failure, try again
STATUS = {End.DONE: 0, End.PREEMPTED: PREEMPTED, End.INTERRUPTED: INTERRUPTED}


def main(argv: list[str] | None = None, program: str = "train.py") -> int:
    """Exit status: 0 done, 2 something to put right, 3 the disk refused, 75 preempted and saved, 130 interrupted."""
    work = lambda: start(argv, program)
    return run_command(program, work, "stopped; the same command goes on from the last checkpoint")


def start(argv: list[str] | None, program: str) -> int:
    """The run that the flags ask for; gives the exit status.

    Raises:
        UserError: where they do not fit together, or anything is not as it must be.
    """
    settings = tyro.extras.overridable_config_cli(PRESETS, prog=program, description=__doc__, args=argv)
    keep_compiled_programs()
    check_paths(settings)
    if settings.made_up:
        settings = made_up.prepared(settings, tiny.PRESET)
    join(settings.processes)
    return STATUS[train(settings, open_weights(Path(settings.checkpoint), []), Terminal())]


def check_paths(settings: Training) -> None:
    """Checks the folders that no preset can know.

    Raises:
        UserError: for those that are not given.
    """
    needed = {
        "--data DATASET (made by `python -m itjax.preparation`)": settings.data or settings.made_up,
        "--checkpoint DIR (made by `python convert_weights.py`)": settings.checkpoint or settings.made_up,
        "--run DIR (for what the run writes)": settings.run,
    }
    missing = [flag for flag, value in needed.items() if not value]
    if missing:
        raise UserError(f"give {', '.join(missing)}")


def join(processes: Processes) -> None:
    """Meets the other processes of the run, before JAX is asked for its devices.

    Raises:
        UserError: where they do not meet.
    """
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


def run(argv: list[str] | None = None, program: str = "train.py") -> None:
    """`main` with the end of the process.

    An unforeseen error is reported and ends the process at once, too: the interpreter's own exit would wait for the other
    processes.
    """
    try:
        status = main(argv, program)
    except Exception:
        traceback.print_exc()
        why = ", or another process ended before this one: its own output says why" if jax.process_count() > 1 else ""
        print(f"{program}: an error{why}. The same command goes on from the last checkpoint.", file=sys.stderr)
        status = 1
    leave(status)
