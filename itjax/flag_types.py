"""Types of numbers for argparse: what is wrong with a value is said in words."""

import argparse
import math


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number") from error


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    if (value := whole(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be positive")
    return value


def not_negative(text: str) -> int:
    """A whole number, 0 or more."""
    if (value := whole(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text}: must not be negative")
    return value


def finite(text: str) -> float:
    """A number, but not infinity or NaN."""
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: must be a number") from error
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text}: must be finite")
    return value
