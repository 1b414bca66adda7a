"""Measures of a video, of tracks that somebody else found in it: sync, silence, speakers, seams, colour, pose.

Each is a number of one clip; `estimate` makes a mean with its confidence interval of the numbers of several.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from itjax.media.containers import FRAME_RATE

# F frames · H W pixels · P persons · K numbers of a pose · N clips

MOST_LAG = 8  # frames: a third of a second
SETTLING = 4  # frames: how long a mouth may take to shut and to open
NEAR = 12  # frames on each side of a border that say what is usual there


class Estimate(NamedTuple):
    """A mean over clips, and between what it lies with 95 % confidence (bootstrap over the clips)."""

    mean: float
    low: float
    high: float
    clips: int


def estimate(values: Sequence[float], draws: int = 2000, seed: int = 0) -> Estimate:
    """The mean of numbers of clips, and its interval; numbers that are none (NaN) are left out.

    Raises:
        ValueError: where none is left.
    """
    kept = np.asarray([value for value in values if not np.isnan(value)], np.float64)
    if not len(kept):
        raise ValueError("no clip has such a number")
    rng = np.random.default_rng(seed)
    means = kept[rng.integers(0, len(kept), (draws, len(kept)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(float(kept.mean()), float(low), float(high), len(kept))


class Sync(NamedTuple):
    """How well one track follows another: correlation as they are, and at the lag (frames) where it is the highest.

    A positive lag: what is found comes late.
    """

    correlation: float
    best_lag: int
    best: float


def sync(found: Num[np.ndarray, " F"], true: Num[np.ndarray, " F"], most_lag: int = MOST_LAG) -> Sync:
    """Of mouth openings found in a picture and the true ones. A track that never changes follows nothing: 0, lag 0.

    Raises:
        ValueError: for clips too short for the lags.
    """
    if len(found) < 4 * most_lag:
        raise ValueError(f"{len(found)} frames are too few for lags of up to {most_lag}")
    inner = slice(most_lag, len(true) - most_lag)  # the same frames of the truth at every lag
    by_lag = {
        lag: correlation(found[most_lag + lag : len(found) - most_lag + lag], true[inner])
        for lag in range(-most_lag, most_lag + 1)
    }
    best = max(by_lag, key=lambda lag: (round(by_lag[lag], 9), -abs(lag)))
    return Sync(correlation(found, true), best, by_lag[best])


def correlation(a: Num[np.ndarray, " F"], b: Num[np.ndarray, " F"]) -> float:
    """Pearson's. 0 where one of them does not change."""
    a, b = (np.asarray(x, np.float64) - np.mean(x) for x in (a, b))
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms > 1e-9 else 0.0


def open_in_silence(opening: Num[np.ndarray, " F"], speaking: Bool[np.ndarray, " F"]) -> float:
    """Mean opening while nothing is said, as a share of that while something is; NaN where either never is.

    Frames next to where speech begins or ends do not count.
    """
    silent, loud = _settled(~speaking), _settled(speaking)
    if not silent.any() or not loud.any():
        return float("nan")
    return float(opening[silent].mean() / max(float(opening[loud].mean()), 1e-9))


def wrong_speaker(openings: Num[np.ndarray, "P F"], speaking: Bool[np.ndarray, "P F"]) -> float:
    """How much the mouths of those move who are silent while another speaks, as a share of how much the speakers' do.

    0: the right one speaks alone. 1: all move alike. NaN where nobody is silent beside a speaker.
    """
    moves = np.abs(np.diff(openings, axis=1, prepend=openings[:, :1]))
    anybody = speaking.any(0)
    heard = np.stack([_settled(of) for of in speaking])
    quiet = np.stack([_settled(~of & anybody) for of in speaking])
    if not heard.any() or not quiet.any():
        return float("nan")
    return float(moves[quiet].mean() / max(float(moves[heard].mean()), 1e-9))


def _settled(where: Bool[np.ndarray, " F"]) -> Bool[np.ndarray, " F"]:
    """Frames around which it is so for SETTLING frames on both sides."""
    around = np.convolve(~where, np.ones(2 * SETTLING + 1, int), "same")
    return where & (around == 0)


def seams(frames: Num[np.ndarray, "F H W 3"], borders: Sequence[int]) -> list[float]:
    """Of each border (the number of a chunk's first new frame): the step into it as a share of the usual step near it.

    Steps are mean absolute differences of successive frames; the usual one is the median within 12 frames, borders left out.
    1: no seam.

    Raises:
        ValueError: for a border that is none of 1..F-1.
    """
    steps = frame_steps(frames)
    ratios = []
    for border in borders:
        if not 0 < border < len(frames):
            raise ValueError(f"border {border} of a video of {len(frames)} frames")
        near = [i for i in range(max(1, border - NEAR), min(len(frames), border + NEAR + 1)) if i not in borders]
        usual = float(np.median(steps[near])) if near else 0.0
        ratios.append(float(steps[border]) / max(usual, 1e-9) if steps[border] > 1e-9 else 1.0)
    return ratios


def frame_steps(frames: Num[np.ndarray, "F H W 3"]) -> Float[np.ndarray, " F"]:
    """Mean absolute difference of each frame to the one before it; 0 for the first."""
    steps = [np.abs(b.astype(np.float64) - a).mean() for a, b in itertools.pairwise(frames)]
    return np.array([0.0, *steps])


def color_curve(frames: Num[np.ndarray, "F H W 3"], fps: int = FRAME_RATE) -> Float[np.ndarray, " seconds"]:
    """How far each second's mean colour is from the first one's: Euclidean, in levels of 255.

    A last part of a second is left out.

    Raises:
        ValueError: for less than two seconds.
    """
    means = _mean_colors(frames, fps)
    return np.linalg.norm(means - means[0], axis=1)


def color_drift(frames: Num[np.ndarray, "F H W 3"], fps: int = FRAME_RATE) -> float:
    """By how many levels of 255 the mean colour moves in 10 s, along the straight line that fits it best.

    Raises:
        ValueError: for less than two seconds.
    """
    means = _mean_colors(frames, fps)
    slopes = np.polyfit(np.arange(len(means)), means, 1)[0]
    return float(10 * np.linalg.norm(slopes))


def _mean_colors(frames: Num[np.ndarray, "F H W 3"], fps: int) -> Float[np.ndarray, "seconds 3"]:
    count = len(frames) // fps
    if count < 2:
        raise ValueError(f"{len(frames)} frames are less than two seconds")
    return frames[: count * fps].reshape(count, -1, 3).mean(1, dtype=np.float64)


class Following(NamedTuple):
    """What a pose is made of: found = source * `source` + reference * `reference` + a constant, by least squares."""

    source: float
    reference: float


def following(
    found: Float[np.ndarray, "F K"], source: Float[np.ndarray, "F K"], reference: Float[np.ndarray, "F K"]
) -> Following:  # fmt: skip
    """How much a dubbed head's pose follows the source's, and how much it snaps to that of the reference.

    `reference` is the pose of the reference that the head's chunk was shown, repeated over the chunk. All numbers of the
    pose weigh by how much they vary. (1, 0): it follows; (0, 1): it copies the reference. NaN where neither source nor
    reference moves.
    """
    flat = lambda x: (np.asarray(x, np.float64) - np.mean(x, axis=0)).ravel()
    made_of = np.stack([flat(source), flat(reference)], axis=1)
    if np.linalg.matrix_rank(made_of, tol=1e-9) < 2:
        alone = flat(source)
        if np.linalg.norm(alone) < 1e-9 or np.linalg.norm(flat(reference)) > 1e-9:
            return Following(float("nan"), float("nan"))
        return Following(float(alone @ flat(found) / (alone @ alone)), 0.0)
    weights = np.linalg.lstsq(made_of, flat(found), rcond=None)[0]
    return Following(float(weights[0]), float(weights[1]))
