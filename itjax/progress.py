"""What a long call says while it works. The library itself prints nothing: it reports here, and the caller decides.

`Progress` is silent. `itjax.terminal.Terminal` prints lines and draws bars, for command lines and notebooks; a server passes
an object of its own with the same methods.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Bar:
    """A counter of finished work. This one draws nothing."""

    def advance(self, amount: int = 1) -> None:
        """Counts `amount` more units as done."""

    def describe(self, text: str) -> None:
        """Names what is being worked on."""

    def close(self) -> None:
        """Ends the bar."""

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Progress:
    """Receives notices and opens bars. This one keeps silent: the default of every function of the library."""

    def notice(self, text: str) -> None:
        """A line for the user: what was found, written, or decided."""

    def bar(self, total: int, unit: str, done: int = 0) -> Bar:
        """A bar over `total` units of work, `done` of which are finished already."""
        return Bar()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Reports the stage `name` with its seconds, once the block has ended."""
        begun = time.perf_counter()
        yield
        self.notice(f"{name}: {time.perf_counter() - begun:.1f} s")


SILENT = Progress()
