"""Drift: what a long video loses or gains slowly. Changes are slopes of least-squares lines through means of seconds."""

import numpy as np
from jaxtyping import Float

from itjax.evaluation.curves import change_per_10_s, per_second
from itjax.media.containers import FRAME_RATE

# F frames


def color_curve(color: Float[np.ndarray, "F 3"], fps: int = FRAME_RATE) -> Float[np.ndarray, " seconds"]:
    """Distance of each second's mean colour from the first second's: Euclidean, in levels of 255."""
    means = per_second(color, fps)
    return np.linalg.norm(means - means[:1], axis=1)


def color_drift(color: Float[np.ndarray, "F 3"], fps: int = FRAME_RATE) -> float:
    """Change of the mean colour per 10 s, in levels of 255: the length of the change of red, green and blue.

    Raises:
        ValueError: If the video is shorter than two seconds.
    """
    return float(np.linalg.norm([change_per_10_s(channel, fps) for channel in color.T]))


def relative_drift(curve: Float[np.ndarray, " F"], fps: int = FRAME_RATE) -> float:
    """Change per 10 s as a fraction of the curve's own mean, such as -0.1 for a tenth of the sharpness lost.

    Raises:
        ValueError: If the video is shorter than two seconds, or the curve is zero.
    """
    mean = float(np.nanmean(curve)) if np.isfinite(curve).any() else 0.0
    if abs(mean) < 1e-9:
        raise ValueError("the curve is zero: there is nothing to lose")
    return change_per_10_s(curve, fps) / mean
