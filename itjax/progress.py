"""Progress reports of long calls. The library itself prints nothing: it calls a `Progress` object passed by the caller.

`Progress` is silent. `itjax.terminal.Terminal` prints lines and progress bars, for command lines and notebooks. A server can
pass its own object with the same methods.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Bar:
    """A progress bar. This base class draws nothing."""

    def advance(self, amount: int = 1) -> None:
        """Advances the bar by `amount` units."""

    def describe(self, text: str) -> None:
        """Sets the bar's description."""

    def close(self) -> None:
        """Closes the bar."""

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Progress:
    """Receives notices and opens progress bars. This base class is silent; it is the default throughout the library."""

    def notice(self, text: str) -> None:
        """Reports a line of text to the user."""

    def bar(self, total: int, unit: str, done: int = 0) -> Bar:
        """Opens a progress bar of `total` units, `done` of which are already finished."""
        return Bar()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Reports the duration of the block as that of stage `name`."""
        start = time.perf_counter()
        yield
        self.notice(f"{name}: {time.perf_counter() - start:.1f} s")


SILENT = Progress()
