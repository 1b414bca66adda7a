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
    padded = np.pad(np.asarray(sound, np.float64), ((MAX_SHIFT, MAX_SHIFT), (0, 0)))
    distances = [
        # torch's pairwise_distance adds 1e-6 to each difference
        float(np.linalg.norm(lips - padded[shift : shift + len(lips)] + 1e-6, axis=1).mean())
        for shift in range(2 * MAX_SHIFT + 1)
    ]
    best = int(np.argmin(distances))
    return Agreement(float(np.median(distances)) - distances[best], distances[best], MAX_SHIFT - best)


def boxes_of(meshes: Float[np.ndarray, "F 468 3"]) -> Float[np.ndarray, "F 4"] | None:
    """(left, top, right, bottom) of the face mesh in each frame; frames without a face (NaN) are interpolated.

    None if there are too few frames, or no face over more than 25 frames.
    """
    found = np.flatnonzero(np.isfinite(meshes).all((1, 2)))
    limits = np.concatenate([[-1], found, [len(meshes)]])
    if len(meshes) < MIN_FRAMES or not len(found) or np.diff(limits).max() - 1 > MAX_GAP:
        return None
    points = meshes[found, :, :2]
    seen = np.concatenate([points.min(1), points.max(1)], axis=1)
    return np.stack([np.interp(np.arange(len(meshes)), found, side) for side in seen.T], axis=1)


def crops(frames: UInt8[np.ndarray, "F H W 3"], boxes: Float[np.ndarray, "F 4"]) -> UInt8[np.ndarray, "F 224 224 3"]:
    """A square around each face that reaches further below and to the sides than its box, which is smoothed in time."""
    left, top, right, bottom = boxes.T
    half = _median(np.maximum(bottom - top, right - left) / 2)
    y, x = _median((top + bottom) / 2), _median((left + right) / 2)
    faces = []
    for frame, size, down, across in zip(frames, half, y, x, strict=True):
        pad = int(size * (1 + 2 * PADDING))
        framed = np.pad(frame, ((pad, pad), (pad, pad), (0, 0)), constant_values=GREY)
        rows = slice(max(0, int(down + pad - size)), int(down + pad + size * (1 + 2 * PADDING)))
        columns = slice(max(0, int(across + pad - size * (1 + PADDING))), int(across + pad + size * (1 + PADDING)))
        face = framed[rows, columns]
        faces.append(cv2.resize(face, (SIDE, SIDE)) if face.size else np.full((SIDE, SIDE, 3), GREY, np.uint8))
    return np.stack(faces).astype(np.uint8)


def _median(track: Float[np.ndarray, " F"]) -> Float[np.ndarray, " F"]:
    """Running median as `scipy.signal.medfilt`: values beyond the ends are 0."""
    reach = SMOOTHING // 2
    return np.median(np.lib.stride_tricks.sliding_window_view(np.pad(track, reach), SMOOTHING), axis=1)
