"""Errors caused by the user's input, disk or settings; their messages are written for the user.

The command-line programs print only the message, without a traceback, and exit with status 2 (or 3 if finished frames were
saved). Any other exception is a bug and keeps its traceback.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping


class UserError(Exception):
    """A problem that the user can fix. The message names the file, key or flag, what is wrong, and what to do."""


class OutputError(UserError):
    """The output could not be written (full disk, missing permission). Previously finished output stays on disk."""


class SettingError(UserError):
    """A setting that nothing can be made with. The message names the library's fields; `flag_names` replaces them by flags.

    Args:
        text: the message, with fields in braces: "{steps} 0: must be at least 1".
    """

    def __init__(self, text: str):
        super().__init__(_named(text, {}))
        self.text = text


class ComputationError(SettingError):
    """The devices could not compute it (memory full, numbers not finite). Previously finished output stays on disk."""


@contextlib.contextmanager
def flag_names(flags: Mapping[str, str]) -> Iterator[None]:
    """Names settings as the command line does in errors of this block. `flags`: {field: flag}.

    Raises:
        SettingError: with the flags' names.
    """
    try:
        yield
    except SettingError as error:
        raise type(error)(_named(error.text, flags)) from error


def _named(text: str, flags: Mapping[str, str]) -> str:
    return re.sub(r"\{([\w.]+)\}", lambda match: flags.get(match[1], match[1]), text)


def first_ten(items: Iterable[object], separator: str = ", ") -> str:
    """The first ten items and the number of the others, for a message."""
    texts = [str(item) for item in items]
    return separator.join(texts[:10]) + (f"{separator}and {len(texts) - 10} more" if len(texts) > 10 else "")
