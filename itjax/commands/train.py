"""`itjax train PRESET`, `python train.py PRESET`: trains InfiniteTalk. See `--help`, `PRESET --help`, or README.md."""

import os
import sys
import traceback
from dataclasses import fields
from pathlib import Path

import jax
import tyro

from itjax.config import Apg, Sampler
from itjax.configs import tiny
from itjax.configs.training import PRESETS
from itjax.errors import UserError, flag_names
from itjax.pipeline.process import keep_compiled_programs, memory_errors
from itjax.terminal import Terminal, run_command
from itjax.training import random_data
from itjax.training.config import Processes, Training
from itjax.training.result import open_weights
from itjax.training.run import PREEMPTED, STATUS, train

_SAMPLER_FIELDS = [*(field.name for field in fields(Sampler)), *(f"apg.{field.name}" for field in fields(Apg))]
SAMPLER_FLAGS = {name: f"--reports.sampler.{name.replace('_', '-')}" for name in _SAMPLER_FIELDS}

LESS_MEMORY = "a smaller --batch, a larger --accumulation, --remat full, or more devices"


def main(argv: list[str] | None = None, program: str = "train.py") -> int:
    """Returns the exit status.

    0 for success, 2 for a user error, 3 if a file cannot be written, 75 if preempted (the state is saved), 130 if
    interrupted.
    """
    work = lambda: start(argv, program)
    return run_command(program, work, "stopped; run the same command to continue from the last checkpoint")


def start(argv: list[str] | None, program: str) -> int:
    """Trains as the flags say; returns the exit status.

    Raises:
        UserError: if a flag, the dataset, the weights or the run's folder are invalid.
    """
    with flag_names(SAMPLER_FLAGS):
        settings = tyro.extras.overridable_config_cli(PRESETS, prog=program, description=__doc__, args=argv)
    keep_compiled_programs()
    check_paths(settings)
    if settings.made_up:
        settings = random_data.create_if_missing(settings, tiny.PRESET)
    join(settings.processes)
    with memory_errors("training", LESS_MEMORY):
        return STATUS[train(settings, open_weights(Path(settings.checkpoint), []), Terminal())]


def check_paths(settings: Training) -> None:
    """Checks that the folders are specified, for which no preset has a default.

    Raises:
        UserError: if some are missing.
    """
    needed = {
        "--data DATASET (made by `python -m itjax.preparation`)": settings.data or settings.made_up,
        "--checkpoint DIR (made by `python convert_weights.py`)": settings.checkpoint or settings.made_up,
        "--run DIR (output folder of the run)": settings.run,
    }
    missing = [flag for flag, value in needed.items() if not value]
    if missing:
        raise UserError(f"missing: {', '.join(missing)}")


def join(processes: Processes) -> None:
    """Connects to the other processes of the run; must come before JAX initialises its devices.

    Raises:
        UserError: if the connection fails.
    """
    if not processes.cluster and not processes.count:
        return
    try:
        if processes.cluster:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(processes.coordinator, processes.count, processes.index)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"processes: cannot connect to the other processes ({error})") from error
    if jax.default_backend() == "cpu":
        # on CPUs only the first process would find programs in the cache, and Gloo times out if another one, which has to
        # compile, is 30 seconds later
        jax.config.update("jax_enable_compilation_cache", False)


def leave(status: int) -> None:
    """Exits. With several processes, one that failed exits at once, since a regular exit would wait for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    if status not in (0, PREEMPTED) and jax.distributed.is_initialized():
        os._exit(status)
    sys.exit(status)


def run(argv: list[str] | None = None, program: str = "train.py") -> None:
    """Runs `main` and exits.

    After an unexpected error, too, the process exits at once: a regular exit would wait for the other processes.
    """
    try:
        status = main(argv, program)
    except Exception:
        traceback.print_exc()
        hint = " (possibly because another process ended first: see its output)" if jax.process_count() > 1 else ""
        print(
            f"{program}: unexpected error{hint}. Run the same command to continue from the last checkpoint.", file=sys.stderr
        )
        status = 1
    leave(status)
