"""What the command lines of the trainers of small networks share. Without JAX: the processes that draw import them, too."""

import argparse
from collections.abc import Callable
from pathlib import Path

from itjax.flag_types import whole
from itjax.terminal import run_command


def parser(program: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser with the flags of every trainer: --out, --minutes, --seed. `doc`: the command's docstring, for its help."""
    description, _, more = (doc or "").partition("\n\n")
    made = argparse.ArgumentParser(
        program, description=description, epilog=more, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    made.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="end after so many minutes; the same command continues (default: no limit)",
    )
    made.add_argument("--seed", type=whole, default=0, help="random seed (default %(default)s)")
    return made


def run(program: str, start: Callable[[], int]) -> int:
    """Runs a trainer; returns the exit status.

    0 for success, 2 for a user error, 3 if a file cannot be written, 75 if steps are left to do after SIGTERM or at the end
    of the minutes, 130 if interrupted.
    """
    return run_command(program, start, "stopped; run the same command again to continue")
