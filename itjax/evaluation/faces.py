"""What a face does in a video, as the detectors of this package report it and the metrics read it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

# F frames


class FaceTrack(NamedTuple):
    """One person's face over a video, one value per frame; NaN where the face is not found.

    `center` (x, y) and `size` (half the head's height) in pixels; `pose`: yaw, pitch and roll in radians. Relative to the
    head's height are `opening`, the distance between the inner lips, and `brows`, the distance from the eyes to the brows.
    """

    found: Bool[np.ndarray, " F"]
    center: Float[np.ndarray, "F 2"]
    size: Float[np.ndarray, " F"]
    pose: Float[np.ndarray, "F 3"]
    opening: Float[np.ndarray, " F"]
    brows: Float[np.ndarray, " F"]
