"""Means over clips, with confidence intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean over clips with its 95 % confidence interval (bootstrap over the clips)."""

    mean: float
    low: float
    high: float
    clips: int


class Total(NamedTuple):
    """A number of a set of clips that no clip has for itself, and how many feature vectors it is computed from."""

    value: float
    clips: int
    made: int  # feature vectors of the clips
    real: int  # feature vectors of their sources


def estimate(values: Sequence[float], draws: int = 2000, seed: int = 0) -> Estimate:
    """The mean over clips and its confidence interval; NaN values are ignored.

    Raises:
        ValueError: If all values are NaN.
    """
    kept = np.asarray([value for value in values if not np.isnan(value)], np.float64)
    if not len(kept):
        raise ValueError("no clip has a value of this metric")
    rng = np.random.default_rng(seed)
    means = kept[rng.integers(0, len(kept), (draws, len(kept)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(float(kept.mean()), float(low), float(high), len(kept))
