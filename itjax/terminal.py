"""Terminal output of commands, and their exit status. Independent of the individual commands."""

import sys
import warnings
from collections.abc import Callable

from tqdm import tqdm

from itjax.errors import OutputError, UserError
from itjax.progress import Bar, Progress

DONE, WRONG, REFUSED, INTERRUPTED = 0, 2, 3, 130  # exit statuses


class Terminal(Progress):
    """Prints notices to standard output and progress bars to standard error."""

    def notice(self, text: str) -> None:
        """Prints a line, above the progress bar if there is one."""
        tqdm.write(text) if sys.stderr.isatty() else print(text)  # tqdm.write redraws the bars, even in a log file
        sys.stdout.flush()

    def bar(self, total: int, unit: str, done: int = 0) -> Bar:
        """A progress bar with the remaining time. In a log file: one line per minute, none if it takes less."""
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
    """Runs `work` and returns the exit status. Prints each user error and warning as one line on standard error.

    Args:
        program: name of the command, printed before error messages.
        work: the command; returns an exit status, or None for 0.
        stopped: message after Ctrl-C.
        refused: additional message if a file cannot be written.

    Returns:
        the result of `work`, 2 for a user error, 3 if a file cannot be written, 130 after Ctrl-C.
    """
    with warnings.catch_warnings():
        # our warnings are addressed to the user: without file and line number
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
