"""Errors caused by the user's input, disk or settings; their messages are written for the user.

The command-line programs print only the message, without a traceback, and exit with status 2 (or 3 if finished frames were
saved). Any other exception is a bug and keeps its traceback.
"""

from collections.abc import Iterable


class UserError(Exception):
    """A problem that the user can fix. The message names the file, key or flag, what is wrong, and what to do."""


class OutputError(UserError):
    """The output could not be written (full disk, missing permission). Previously finished output stays on disk."""


def first_ten(items: Iterable[object], separator: str = ", ") -> str:
    """The first ten items and the number of the others, for a message."""
    texts = [str(item) for item in items]
    return separator.join(texts[:10]) + (f"{separator}and {len(texts) - 10} more" if len(texts) > 10 else "")
