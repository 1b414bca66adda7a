"""Shapes in signatures are checked in the first calls of each function in each test, not in thousands of equal ones.

Reading the tiny checkpoint calls the functions for one tensor some 15,000 times; to check all of them took as long as the
reading itself.
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from beartype import beartype

CALLS = 20
# subclasses of Flax's layers, some of whose fields have a Protocol as their type, which cannot be checked
UNCHECKED = ("itjax.models.layers",)
calls: Counter[tuple[str, str]] = Counter()  # of this test, by module and name of a function
unchecked: list[Any] = []  # functions that had their calls in this test


def beartype_at_first(stand_in: Callable) -> Callable:
    """The type checker that jaxtyping's import hook puts on its stand-in of a function: beartype, which counts."""
    function = stand_in.__module__, stand_in.__qualname__
    most = 2 * CALLS  # there are two stand-ins: of the parameters, and of these with the result
    if stand_in.__module__ in UNCHECKED:
        return stand_in
    if calls[function] >= most:  # a function within another, which is made anew at each call of that one
        return stand_in
    check = functools.cache(lambda: beartype(stand_in))  # made at the first call: most functions have none in a process

    @functools.wraps(stand_in)
    def checked(*args, **kwargs):
        calls[function] += 1
        if calls[function] == most:
            stop_checking(*function)
        return check()(*args, **kwargs) if calls[function] <= most else None

    return checked


def stop_checking(module: str, name: str) -> None:
    """Marks a function as `typing.no_type_check` does, where it can be found by its name; jaxtyping looks at each call."""
    try:
        found = functools.reduce(getattr, name.split("."), sys.modules[module])
    except AttributeError:  # within another function: it goes on to be called, but not to be checked
        return
    while hasattr(found, "__wrapped__") and not is_jaxtyped(found):
        found = found.__wrapped__
    if is_jaxtyped(found):
        found.__no_type_check__ = True
        unchecked.append(found)


def is_jaxtyped(function: Any) -> bool:
    """Whether it is what jaxtyping put in the place of a function."""
    code = getattr(function, "__code__", None)
    return code is not None and "jaxtyping" in code.co_filename


def check_again() -> None:
    """To be called before each test."""
    calls.clear()
    while unchecked:
        del unchecked.pop().__no_type_check__
