"""A command in a terminal: what it prints while it works, and what it makes of the way it ends. Knows no command."""

import sys
import warnings
from collections.abc import Callable

from tqdm import tqdm

from itjax.errors import OutputError, UserError
from itjax.progress import Bar, Progress

DONE, WRONG, REFUSED, INTERRUPTED = 0, 2, 3, 130  # exit statuses


class Terminal(Progress):
    """Prints notices to standard output and draws bars on standard error."""

    def notice(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        tqdm.write(text) if sys.stderr.isatty() else print(text)  # tqdm would draw its bars again, in a log, too
        sys.stdout.flush()

    def bar(self, total: int, unit: str, done: int = 0) -> Bar:
        """A bar with the time left. In a log file it is a line a minute, and none of what takes less than one."""
        pause, delay = (0.1, 0.0) if sys.stderr.isatty() else (60.0, 60.0)
        scale = unit == "B"
        return _TerminalBar(
            tqdm(total=total, initial=done, unit=unit, unit_scale=scale, smoothing=0.1, mininterval=pause, delay=delay)
        )


class _TerminalBar(Bar):
    def __init__(self, bar: tqdm):
        self._bar = bar

    def advance(self, amount: int = 1) -> None:
        self._bar.update(amount)

    def describe(self, text: str) -> None:
        self._bar.set_description(text, refresh=False)

    def close(self) -> None:
        self._bar.close()


def run_command(program: str, work: Callable[[], int | None], stopped: str, refused: str = "") -> int:
    """Runs `work` and gives the exit status; errors and warnings for the user become a line on standard error each.

    Args:
        program: the command's name, which begins the lines.
        work: the command; gives an exit status where it is not 0.
        stopped: what to say after Ctrl-C.
        refused: what to say after the error where the disk refused.

    Returns:
        what `work` gave, 2 for something that the user can put right, 3 where the disk refused, 130 after Ctrl-C.
    """
    with warnings.catch_warnings():
        # ours are for the user: without file and line
        warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
        try:
            return work() or DONE
        except OutputError as error:
            print(f"{program}: {error}", *[refused] * bool(refused), sep="\n", file=sys.stderr)
            return REFUSED
        except UserError as error:
            print(f"{program}: {error}", file=sys.stderr)
            return WRONG
        except KeyboardInterrupt:
            print(f"\n{program}: {stopped}", file=sys.stderr)
            return INTERRUPTED
