"""A tensor whose values are read on demand: the one type for what is in a file, in a checkpoint, or about to be written."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from itjax.weights.mapping import Index, Shape

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class LazyTensor(NamedTuple):
    """A tensor by its shape and dtype; `read(index)` returns the slice `index` and `read(())` everything, as a new array.

    `file` is where it comes from; None if it is computed.
    """

    shape: Shape
    dtype: np.dtype
    read: Callable[[Index], np.ndarray]
    file: Path | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def astype(self, dtype: np.dtype) -> "LazyTensor":
        """The same tensor in another dtype, cast slice by slice as it is read."""
        return self._replace(dtype=dtype, read=partial(_read_as, self, dtype))


def changed_dtype(stored: np.dtype) -> np.dtype:
    """The dtype in which the values of a tensor can be changed: not float8, which would round most changes away."""
    return stored if stored.itemsize > 1 else BFLOAT16


def _read_as(tensor: LazyTensor, dtype: np.dtype, index: Index) -> np.ndarray:
    return tensor.read(index).astype(dtype)
