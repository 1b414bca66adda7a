"""Orbax's own reports of errors: pages on stderr, before and after the one sentence in which an error is told here."""

import contextlib
import logging
import sys
from collections.abc import Iterator

LOGGERS = "absl", "asyncio", "concurrent.futures"
LATE = "Event loop is closed"  # what reads and writes find that end after another one's error


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Silences Orbax in the block, and after an error for good: its threads go on reporting until the process ends.

    Orbax's loggers, and the errors of reads and writes that tensorstore ends after the first one has failed: nothing waits
    for these any more.
    """
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels, hook = [logger.level for logger in loggers], sys.unraisablehook

    def without_late_ones(report: "sys.UnraisableHookArgs") -> None:
        if not (isinstance(report.exc_value, RuntimeError) and str(report.exc_value) == LATE):
            hook(report)

    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)  # concurrent.futures has critical ones
    sys.unraisablehook = without_late_ones
    yield
    sys.unraisablehook = hook
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
