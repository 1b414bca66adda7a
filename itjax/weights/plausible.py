"""Refuses values that no trained network has: damaged weights are found when they are read, not as black frames."""

from pathlib import Path

import ml_dtypes  # noqa: F401  (makes "bfloat16" and "float8_e4m3fn" names that numpy knows)
import numpy as np

from itjax.errors import UserError

FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
# One flipped bit of the exponent makes a usual weight 2^64 or 2^128 times as large, which is often still finite.
LIMIT = 2.0**30


def is_plausible(values: np.ndarray) -> bool:
    """Whether all values are finite and below `LIMIT` in magnitude, as integers always are.

    Read as integers, floating-point numbers are in the order of their magnitudes, with the sign as the highest bit, and
    infinity and NaN come last. Finding two maxima needs no further memory and is faster (3 GB/s) than reading a file.
    """
    dtype = np.dtype(values.dtype)
    if not values.size or dtype.name not in FLOATS:
        return True
    bits = 8 * dtype.itemsize
    with np.errstate(over="ignore"):  # in the small types, it is the first infinity or NaN
        limit = int(np.asarray(LIMIT).astype(dtype).view(f"uint{bits}"))
    positive, negative = values.view(f"int{bits}").max(), values.view(f"uint{bits}").max()
    return bool(positive < limit) and int(negative) - 2 ** (bits - 1) < limit


def check_values(values: np.ndarray, name: str, file: Path | None) -> None:
    """Checks the values of the tensor `name`, which come from `file`.

    Raises:
        UserError: if they are not plausible.
    """
    if not is_plausible(values):
        where = f"{file}: " if file else ""
        raise UserError(f"{where}{name} has values that are NaN, infinite or above {LIMIT:.0e}: replace the damaged file")
