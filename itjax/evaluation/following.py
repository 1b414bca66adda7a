"""Following of the source: whether the head and the camera move as in the source, and what changes outside the speaker."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

# F frames · H W pixels · K pose parameters


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


def chunk_references(source: Float[np.ndarray, "F K"], borders: list[int]) -> Float[np.ndarray, "F K"]:
    """The pose of the reference used for each frame: the source's at the start of the frame's chunk."""
    starts = np.zeros(len(source), int)
    for border in borders:
        starts[border:] = border
    return source[starts]


def squared_error_outside(
    frames: UInt8[np.ndarray, "F H W 3"], source: UInt8[np.ndarray, "F H W 3"], inside: Bool[np.ndarray, "F H W"]
) -> Float[np.ndarray, " F"]:  # fmt: skip
    """Mean squared difference from the source of the pixels outside of `inside`, per frame; NaN where nothing is outside."""
    errors = []
    for frame, original, mask in zip(frames, source, inside, strict=True):
        outside = ~mask
        difference = frame[outside].astype(np.float32) - original[outside]
        errors.append(float(np.mean(difference**2)) if len(difference) else np.nan)
    return np.array(errors)


def decibels(squared_error: Float[np.ndarray, " F"]) -> float:
    """PSNR in dB of the mean squared error over the frames, levels of 255; 100 dB at most (equal pictures).

    Raises:
        ValueError: If no frame has a value.
    """
    known = squared_error[np.isfinite(squared_error)]
    if not len(known):
        raise ValueError("no face is found, or the speaker fills the picture: nothing is known to be outside")
    return float(10 * np.log10(255**2 / max(float(known.mean()), 255**2 * 1e-10)))
