"""Terminal output of commands, and their exit status. Independent of the individual commands."""

import contextlib
import errno
import gc
import io
import os
import re
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

from tqdm import tqdm

from itjax.errors import ComputationError, OutputError, UserError
from itjax.progress import Bar, Progress

DONE, WRONG, REFUSED = 0, 2, 3  # exit statuses
INTERRUPTED, UNREAD, TERMINATED = 130, 141, 143  # the same, after SIGINT, SIGPIPE and SIGTERM


# They would direct the terminal, or show a text other than it is; names of files, and texts from JSON, may have any
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with control characters, except tabs and line breaks, as Python writes them."""
    return CONTROL_CHARACTERS.sub(lambda found: ascii(found[0])[1:-1], text)


def _complain(*lines: str) -> None:
    print(*map(printable, lines), sep="\n", file=sys.stderr)


class Terminal(Progress):
    """Prints notices to standard output and progress bars to standard error."""

    def notice(self, text: str) -> None:
        """Prints a line, above the progress bar if there is one."""
        text = printable(text)
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


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM; like Ctrl-C, this ends the work between two calls into compiled code."""


def run_command(program: str, work: Callable[[], int | None], stopped: str, refused: str = "") -> int:
    """Runs `work` and returns the exit status. Prints each user error and warning as one line on standard error.

    Args:
        program: name of the command, printed before error messages.
        work: the command; returns an exit status, or None for 0.
        stopped: message after Ctrl-C or SIGTERM.
        refused: additional message if a file cannot be written.

    Returns:
        the result of `work`, 2 for a user error, 3 if a file cannot be written or the devices cannot compute it, 130 after
        Ctrl-C, 143 after SIGTERM, 141 if nobody reads the output any more.
    """
    # Programs are traced by making objects by the hundred thousand, most of which stay; Python would look at them every 700.
    gc.set_threshold(10_000, 10, 10)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may be no text in the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings(), _sigterm_raises():
            # our warnings are addressed to the user: without file and line number
            warnings.showwarning = lambda message, *_, **__: _complain(f"warning: {message}")
            return _status(program, work, stopped, refused)
    except BrokenPipeError:
        if not _silence_closed_pipes():
            raise
        return UNREAD


def _status(program: str, work: Callable[[], int | None], stopped: str, refused: str) -> int:
    try:
        status = work() or DONE
        sys.stdout.flush()
        return status
    except OutputError as error:
        _complain(f"{program}: {error}", *[refused] * bool(refused))
        return REFUSED
    except UserError as error:
        _complain(f"{program}: {error}")
        return REFUSED if isinstance(error, ComputationError) else WRONG
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        _complain(f"{program}: {error.filename}: {error.strerror}")  # wherever a given name is looked up first
        return WRONG
    except KeyboardInterrupt as interrupt:
        print(f"\n{program}: {stopped}", file=sys.stderr)
        return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Raises Terminated in this block on SIGTERM, unless the caller handles this signal; a second one ends the process."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _silence_closed_pipes() -> bool:
    """Whether standard output or error is a pipe that nobody reads; if so, nothing more is written there."""
    streams = {stream.fileno(): stream for stream in (sys.stdout, sys.stderr)}
    poll = select.poll()
    for descriptor in streams:
        poll.register(descriptor, 0)  # errors are always reported
    closed = [streams[descriptor] for descriptor, _ in poll.poll(0)]
    for stream in closed:  # else Python would report it once more when the process ends
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
    return bool(closed)
