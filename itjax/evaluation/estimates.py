"""Means over clips, with confidence intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit


class Estimate(NamedTuple):
    """A mean over clips with its 95 % confidence interval (Student's t). One clip has no interval: None."""

    mean: float
    low: float | None
    high: float | None
    clips: int


class Total(NamedTuple):
    """A number of a set of clips that no clip has for itself, and how many feature vectors it is computed from."""

    value: float
    clips: int
    made: int  # feature vectors of the clips
    real: int  # feature vectors of their sources


def estimate(values: Sequence[float]) -> Estimate:
    """The mean over clips and its confidence interval, mean ± t(n-1)·s/√n; NaN values are ignored.

    Raises:
        ValueError: If all values are NaN.
    """
    kept = np.asarray([value for value in values if not np.isnan(value)], np.float64)
    if not len(kept):
        raise ValueError("no clip has a value of this metric")
    mean, clips = float(kept.mean()), len(kept)
    if clips == 1:
        return Estimate(mean, None, None, clips)
    half = float(stdtrit(clips - 1, 0.975) * kept.std(ddof=1) / np.sqrt(clips))
    return Estimate(mean, mean - half, mean + half, clips)
