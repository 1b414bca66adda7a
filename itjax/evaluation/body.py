"""The head as a whole: how fast it moves, and whether it trembles."""

import numpy as np
from jaxtyping import Float

from itjax.evaluation.faces import FaceTrack

# F frames


def head_speed(track: FaceTrack) -> Float[np.ndarray, " F"]:
    """Motion of the head since the previous frame: shift in units of half its height, plus turn in radians.

    The first frame has the value of the second. NaN where the face is not found in both frames.
    """
    size = np.nanmedian(track.size) if np.isfinite(track.size).any() else np.nan
    shift = np.linalg.norm(np.diff(track.center, axis=0), axis=1) / size
    turn = np.linalg.norm(np.diff(track.pose, axis=0), axis=1)
    speed = shift + turn
    return np.concatenate([speed[:1], speed]) if len(speed) else np.full(len(track.size), np.nan)


def jitter(track: FaceTrack) -> float:
    """Trembling of the head: typical change of its velocity from frame to frame (root mean square of the second difference).

    In percent of half the head's height. Smooth motion of any speed has almost none.

    Raises:
        ValueError: If the face is not found in three consecutive frames.
    """
    second = np.diff(track.center, n=2, axis=0) / np.nanmedian(track.size) if track.found.any() else np.zeros((0, 2))
    kept = second[np.isfinite(second).all(1)]
    if not len(kept):
        raise ValueError("the face is not found in three consecutive frames")
    return float(100 * np.sqrt((kept**2).sum(1).mean()))
