"""Metrics of a clip from its frames and detected tracks: sync, silence, speakers, seams, colour, pose.

Each is one number per clip; `estimate` computes the mean over several clips with its confidence interval.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from itjax.media.containers import FRAME_RATE

# F frames · H W pixels · P persons · K pose parameters · N clips

MAX_LAG = 8  # frames: a third of a second
TRANSITION_FRAMES = 4  # that a mouth may take to close or to open
BORDER_WINDOW = 12  # frames on each side of a border that define the usual step there


class Estimate(NamedTuple):
    """A mean over clips with its 95 % confidence interval (bootstrap over the clips)."""

    mean: float
    low: float
    high: float
    clips: int


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


class Sync(NamedTuple):
    """How well a detected track follows the true one: correlation at lag 0, and at the lag (frames) that maximises it.

    A positive lag means that the detected track is late.
    """

    correlation: float
    best_lag: int
    best: float


def sync(detected: Num[np.ndarray, " F"], true: Num[np.ndarray, " F"], max_lag: int = MAX_LAG) -> Sync:
    """Compares detected mouth openings with the true ones. A constant track gives correlation 0 at lag 0.

    Raises:
        ValueError: If the clip is too short for the lags.
    """
    if len(detected) < 4 * max_lag:
        raise ValueError(f"{len(detected)} frames are too few for lags of up to {max_lag}")
    inner = slice(max_lag, len(true) - max_lag)  # the same frames of the true track at every lag
    by_lag = {
        lag: correlation(detected[max_lag + lag : len(detected) - max_lag + lag], true[inner])
        for lag in range(-max_lag, max_lag + 1)
    }
    best = max(by_lag, key=lambda lag: (round(by_lag[lag], 9), -abs(lag)))
    return Sync(correlation(detected, true), best, by_lag[best])


def correlation(a: Num[np.ndarray, " F"], b: Num[np.ndarray, " F"]) -> float:
    """Pearson correlation; 0 if either track is constant."""
    a, b = (np.asarray(x, np.float64) - np.mean(x) for x in (a, b))
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms > 1e-9 else 0.0


def open_in_silence(opening: Num[np.ndarray, " F"], speaking: Bool[np.ndarray, " F"]) -> float:
    """Mean opening in silence as a fraction of that in speech; NaN if the clip has no silence or no speech.

    Frames next to the start or end of speech are excluded.
    """
    silent, spoken = _away_from_changes(~speaking), _away_from_changes(speaking)
    if not silent.any() or not spoken.any():
        return float("nan")
    return float(opening[silent].mean() / max(float(opening[spoken].mean()), 1e-9))


def wrong_speaker(openings: Num[np.ndarray, "P F"], speaking: Bool[np.ndarray, "P F"]) -> float:
    """Movement of silent persons' mouths while another speaks, as a fraction of the movement of the speakers' mouths.

    0: only the speaker's mouth moves. 1: all mouths move alike. NaN if nobody is silent while another speaks.
    """
    movement = np.abs(np.diff(openings, axis=1, prepend=openings[:, :1]))
    anyone_speaks = speaking.any(0)
    speakers = np.stack([_away_from_changes(person) for person in speaking])
    silent = np.stack([_away_from_changes(~person & anyone_speaks) for person in speaking])
    if not speakers.any() or not silent.any():
        return float("nan")
    return float(movement[silent].mean() / max(float(movement[speakers].mean()), 1e-9))


def _away_from_changes(flags: Bool[np.ndarray, " F"]) -> Bool[np.ndarray, " F"]:
    """Frames for which the flag is also set in the TRANSITION_FRAMES on both sides."""
    unset_nearby = np.convolve(~flags, np.ones(2 * TRANSITION_FRAMES + 1, int), "same")
    return flags & (unset_nearby == 0)


def seams(frames: Num[np.ndarray, "F H W 3"], borders: Sequence[int]) -> list[float]:
    """For each border (index of a chunk's first new frame), the step into it as a multiple of the usual step nearby.

    Steps are mean absolute differences of consecutive frames; the usual step is the median within 12 frames, without
    borders. 1: no seam.

    Raises:
        ValueError: If a border is not within 1..F-1.
    """
    steps = frame_steps(frames)
    ratios = []
    for border in borders:
        if not 0 < border < len(frames):
            raise ValueError(f"border {border} is not inside a video of {len(frames)} frames")
        near = [
            i
            for i in range(max(1, border - BORDER_WINDOW), min(len(frames), border + BORDER_WINDOW + 1))
            if i not in borders
        ]
        usual = float(np.median(steps[near])) if near else 0.0
        ratios.append(float(steps[border]) / max(usual, 1e-9) if steps[border] > 1e-9 else 1.0)
    return ratios


def frame_steps(frames: Num[np.ndarray, "F H W 3"]) -> Float[np.ndarray, " F"]:
    """Mean absolute difference of each frame from the previous one; 0 for the first."""
    steps = [np.abs(b.astype(np.float64) - a).mean() for a, b in itertools.pairwise(frames)]
    return np.array([0.0, *steps])


def color_curve(frames: Num[np.ndarray, "F H W 3"], fps: int = FRAME_RATE) -> Float[np.ndarray, " seconds"]:
    """Distance of each second's mean colour from the first second's: Euclidean, in levels of 255.

    An incomplete last second is dropped.

    Raises:
        ValueError: If the video is shorter than two seconds.
    """
    means = _mean_colors(frames, fps)
    return np.linalg.norm(means - means[0], axis=1)


def color_drift(frames: Num[np.ndarray, "F H W 3"], fps: int = FRAME_RATE) -> float:
    """Change of the mean colour per 10 s, in levels of 255, by a least-squares line.

    Raises:
        ValueError: If the video is shorter than two seconds.
    """
    means = _mean_colors(frames, fps)
    slopes = np.polyfit(np.arange(len(means)), means, 1)[0]
    return float(10 * np.linalg.norm(slopes))


def _mean_colors(frames: Num[np.ndarray, "F H W 3"], fps: int) -> Float[np.ndarray, "seconds 3"]:
    count = len(frames) // fps
    if count < 2:
        raise ValueError(f"{len(frames)} frames are less than two seconds")
    return frames[: count * fps].reshape(count, -1, 3).mean(1, dtype=np.float64)


class PoseFit(NamedTuple):
    """Least-squares fit of a pose: found = source * `source` + reference * `reference` + a constant."""

    source: float
    reference: float


def fit_pose(
    found: Float[np.ndarray, "F K"], source: Float[np.ndarray, "F K"], reference: Float[np.ndarray, "F K"]
) -> PoseFit:  # fmt: skip
    """How much a dubbed head's pose follows the source's, and how much it snaps to the reference's.

    `reference` is the pose of the reference used for the frame's chunk, repeated over the chunk. Pose parameters count by
    how much they vary. (1, 0): follows the source; (0, 1): copies the reference. NaN if the fit is not determined: the
    source does not move, or source and reference move proportionally.
    """
    flat = lambda x: (np.asarray(x, np.float64) - np.mean(x, axis=0)).ravel()
    design = np.stack([flat(source), flat(reference)], axis=1)
    if np.linalg.matrix_rank(design, tol=1e-9) < 2:
        source_only = flat(source)
        if np.linalg.norm(source_only) < 1e-9 or np.linalg.norm(flat(reference)) > 1e-9:
            return PoseFit(float("nan"), float("nan"))
        return PoseFit(float(source_only @ flat(found) / (source_only @ source_only)), 0.0)
    weights = np.linalg.lstsq(design, flat(found), rcond=None)[0]
    return PoseFit(float(weights[0]), float(weights[1]))
