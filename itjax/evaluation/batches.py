"""Runs a network over any number of items in batches of one size, so that one program serves all clips."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Num

# N items


def in_batches(
    compute: Callable[[Num[np.ndarray, "batch ..."]], Any], items: Sequence[np.ndarray] | np.ndarray, size: int
) -> Float32[np.ndarray, "N D"]:  # fmt: skip
    """`compute` of all items, `size` at a time; the last batch is filled up with copies of its last item.

    `items` are of one shape; `compute` returns an array.

    Raises:
        ValueError: If there are no items: the width of the result would not be known.
    """
    if not len(items):
        raise ValueError("no items")
    results = []
    for start in range(0, len(items), size):
        batch = items[start : start + size]
        full = np.stack([*batch, *[batch[-1]] * (size - len(batch))])
        results.append(np.asarray(compute(full), np.float32)[: len(batch)])
    return np.concatenate(results)
