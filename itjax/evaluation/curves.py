"""Curves, one value per frame: correlation, lag and change over time. NaN: the frame has no value, and is ignored."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from itjax.media.containers import FRAME_RATE

# F frames · K values per frame

MAX_LAG = 8  # frames: a third of a second
LEAST_FRAMES = 4 * MAX_LAG  # of a correlation that is reported: that of two frames is 1 or -1


class Sync(NamedTuple):
    """How well a curve follows another: correlation at lag 0, and at the lag (frames) that maximises it.

    A positive lag means that the first curve is late.
    """

    correlation: float
    best_lag: int
    best: float


def sync(found: Num[np.ndarray, " F"], reference: Num[np.ndarray, " F"], max_lag: int = MAX_LAG) -> Sync:
    """Compares a curve, such as the mouth's opening, with what it should follow. A constant one gives 0 at lag 0.

    Raises:
        ValueError: If the clip is too short for the lags.
    """
    if len(found) < 4 * max_lag:
        raise ValueError(f"{len(found)} frames are too few for lags of up to {max_lag}")
    inner = slice(max_lag, len(reference) - max_lag)  # the same frames of the reference at every lag
    by_lag = {
        lag: correlation(found[max_lag + lag : len(found) - max_lag + lag], reference[inner])
        for lag in range(-max_lag, max_lag + 1)
    }
    best = max(by_lag, key=lambda lag: (round(by_lag[lag], 9), -abs(lag)))
    return Sync(correlation(found, reference), best, by_lag[best])


def correlation(a: Num[np.ndarray, " F"], b: Num[np.ndarray, " F"]) -> float:
    """Pearson correlation over the frames where both have a value; 0 if either is constant there, or there are none."""
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any():
        return 0.0
    a, b = (np.asarray(x[both], np.float64) - np.mean(x[both]) for x in (a, b))
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms > 1e-9 else 0.0


def correlation_of_enough(a: Num[np.ndarray, " F"], b: Num[np.ndarray, " F"]) -> float:
    """`correlation`, if enough is known to report it.

    Raises:
        ValueError: If fewer than 32 frames have values in both.
    """
    if (known := int((np.isfinite(a) & np.isfinite(b)).sum())) < LEAST_FRAMES:
        raise ValueError(f"{known} frames with values, less than {LEAST_FRAMES}")
    return correlation(a, b)


def correlation_of_all(a: Float[np.ndarray, "F K"], b: Float[np.ndarray, "F K"]) -> float:
    """One correlation for several curves in the same unit, each around its own mean: what varies more counts more.

    Raises:
        ValueError: If no frame has values in both.
    """
    both = np.isfinite(a).all(1) & np.isfinite(b).all(1)
    if not both.any():
        raise ValueError("no frame has a value in both")
    a, b = a[both], b[both]
    return correlation((a - a.mean(0)).ravel(), (b - b.mean(0)).ravel())


def per_second(curve: Num[np.ndarray, "F ..."], fps: int = FRAME_RATE) -> Float[np.ndarray, "seconds ..."]:
    """The mean of each whole second, NaN if no frame of it has a value; an incomplete last second is dropped."""
    whole = len(curve) // fps * fps
    seconds = np.asarray(curve[:whole], np.float64).reshape(-1, fps, *curve.shape[1:])
    counts = np.isfinite(seconds).sum(1)
    return np.where(counts > 0, np.nansum(seconds, axis=1) / np.maximum(counts, 1), np.nan)


def change_per_10_s(curve: Num[np.ndarray, " F"], fps: int = FRAME_RATE) -> float:
    """The change in 10 s of the least-squares line through the means of the seconds.

    Raises:
        ValueError: If fewer than two seconds have values.
    """
    means = per_second(curve, fps)
    known = np.isfinite(means)
    if known.sum() < 2:
        raise ValueError(f"{len(curve)} frames are less than two seconds with values")
    return float(10 * np.polyfit(np.flatnonzero(known), means[known], 1)[0])
