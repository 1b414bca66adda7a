"""Sync-C and Sync-D: how well SyncNet's vectors of lips and sound agree, and at which shift. Knows no network.

Crops, distances and confidence are as in github.com/joonson/syncnet_python (run_pipeline.py and SyncNetInstance.py), except
that boxes come from another detector than its S3FD, and that crops are not stored as JPEG in between.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

# F frames · N windows of 5 frames · H W pixels · D features

MAX_SHIFT = 15  # frames
PADDING = 0.40  # of the box's larger side, below it and on both sides
SMOOTHING = 13  # frames of the running median
MAX_GAP = 25  # frames without a face, within which boxes are interpolated
GREY = 110  # outside the picture
SIDE = 224  # of a crop in pixels
BLOCK = 256  # windows that are compared at a time
MIN_FRAMES = 50  # below, most windows would be compared with nothing at the largest shifts


class Agreement(NamedTuple):
    """`confidence` (Sync-C): median minus minimum, over shifts, of the mean distance; `distance` (Sync-D): the minimum.

    `lag`: frames by which the lips are late at that minimum.
    """

    confidence: float
    distance: float
    lag: int


def agreement(lips: Float[np.ndarray, "N D"], sound: Float[np.ndarray, "N D"]) -> Agreement:
    """Compares each window's lips with the sound up to 15 frames away, in both directions; beyond its ends it is 0."""
    padded = np.pad(sound, ((MAX_SHIFT, MAX_SHIFT), (0, 0)))
    sums = np.zeros(2 * MAX_SHIFT + 1)
    for start in range(0, len(lips), BLOCK):
        block = np.asarray(lips[start : start + BLOCK], np.float64)
        for shift in range(len(sums)):
            heard = padded[start + shift : start + shift + len(block)]
            # torch's pairwise_distance adds 1e-6 to each difference
            sums[shift] += np.linalg.norm(block - heard + 1e-6, axis=1).sum()
    distances = sums / len(lips)
    best = int(np.argmin(distances))
    return Agreement(float(np.median(distances)) - float(distances[best]), float(distances[best]), MAX_SHIFT - best)


def boxes_of(found: Float[np.ndarray, "F 4"]) -> Float[np.ndarray, "F 4"]:
    """(left, top, right, bottom) of the face in each frame; frames without a face (NaN) are interpolated.

    Raises:
        ValueError: If there are too few frames, or no face over more than 25 frames.
    """
    if len(found) < MIN_FRAMES:
        raise ValueError(f"{len(found)} frames with sound are less than two seconds")
    known = np.flatnonzero(np.isfinite(found).all(1))
    limits = np.concatenate([[-1], known, [len(found)]])
    if np.diff(limits).max() - 1 > MAX_GAP:
        raise ValueError("no face is found for more than a second")
    return np.stack([np.interp(np.arange(len(found)), known, side) for side in found[known].T], axis=1)


def squares(boxes: Float[np.ndarray, "F 4"]) -> Float[np.ndarray, "F 3"]:
    """Half the side and the middle (y, x) of a square around each box, smoothed in time: what `crops` reads."""
    left, top, right, bottom = boxes.T
    sides = np.maximum(bottom - top, right - left) / 2, (top + bottom) / 2, (left + right) / 2
    return np.stack([_median(track) for track in sides], axis=1)


def crops(frames: UInt8[np.ndarray, "F H W 3"], faces: Float[np.ndarray, "F 3"]) -> UInt8[np.ndarray, "F 224 224 3"]:
    """A picture around each face (of `squares`) that reaches further below and to the sides."""
    cut = []
    for frame, (size, down, across) in zip(frames, faces, strict=True):
        pad = int(size * (1 + 2 * PADDING))
        framed = np.pad(frame, ((pad, pad), (pad, pad), (0, 0)), constant_values=GREY)
        rows = slice(max(0, int(down + pad - size)), int(down + pad + size * (1 + 2 * PADDING)))
        columns = slice(max(0, int(across + pad - size * (1 + PADDING))), int(across + pad + size * (1 + PADDING)))
        face = framed[rows, columns]
        cut.append(cv2.resize(face, (SIDE, SIDE)) if face.size else np.full((SIDE, SIDE, 3), GREY, np.uint8))
    return np.stack(cut).astype(np.uint8)


def _median(track: Float[np.ndarray, " F"]) -> Float[np.ndarray, " F"]:
    """Running median as `scipy.signal.medfilt`: values beyond the ends are 0."""
    reach = SMOOTHING // 2
    return np.median(np.lib.stride_tricks.sliding_window_view(np.pad(track, reach), SMOOTHING), axis=1)
