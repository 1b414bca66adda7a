"""The camera's motion: that of what is seen outside the speakers, from points tracked by optical flow."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from itjax.evaluation.curves import correlation_of_all

# F frames · H W pixels

LONGEST_SIDE = 256  # pixels to which pictures are reduced for this
ANCHOR_FRAMES = 25  # motion is measured from a frame of the last second, so that errors of single frames do not add up
POINTS, QUALITY, DISTANCE = 80, 0.02, 5  # number of tracked corners, quality relative to the best, pixels between them
LEAST_POINTS = 6  # fewer do not tell the camera from an object
INLIER = 1.0  # pixels by which a point may differ from the common motion


class _Anchor(NamedTuple):
    number: int  # of frames before it
    picture: np.ndarray
    points: np.ndarray | None
    position: np.ndarray


class CameraTracker:
    """Follows the camera over a video given piece by piece."""

    def __init__(self) -> None:
        self._anchor: _Anchor | None = None
        self._count = 0

    def __call__(
        self, frames: UInt8[np.ndarray, "F H W 3"], inside: Bool[np.ndarray, "F H W"]
    ) -> Float[np.ndarray, "F 3"]:  # fmt: skip
        """Position (x, y) in picture heights and log zoom of each frame of a piece, relative to the video's first frame.

        `inside`: pixels of the speakers, which are ignored. NaN where too few points are seen outside them.
        """
        positions = []
        for frame, mask in zip(frames, inside, strict=True):
            scale = min(1.0, LONGEST_SIDE / max(frame.shape[:2]))
            size = (max(8, round(frame.shape[1] * scale)), max(8, round(frame.shape[0] * scale)))
            grey = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
            position = np.zeros(3) if self._anchor is None else self._anchor.position + _motion(self._anchor, grey)
            positions.append(position)
            if self._anchor is None or self._count - self._anchor.number >= ANCHOR_FRAMES:
                outside = cv2.resize((~mask).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
                points = cv2.goodFeaturesToTrack(grey, POINTS, QUALITY, DISTANCE, mask=outside)
                last = position if np.isfinite(position).all() or self._anchor is None else self._anchor.position
                self._anchor = _Anchor(self._count, grey, points, last)
            self._count += 1
        return np.array(positions).reshape(-1, 3)


def _motion(anchor: _Anchor, grey: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, " 3"]:
    unknown = np.full(3, np.nan)
    if anchor.points is None or len(anchor.points) < LEAST_POINTS:
        return unknown
    found, status, _ = cv2.calcOpticalFlowPyrLK(anchor.picture, grey, anchor.points, None)  # type: ignore[call-overload]
    kept = status.ravel() > 0
    if kept.sum() < LEAST_POINTS:
        return unknown
    middle = (np.array(grey.shape[::-1], np.float32) - 1) / 2
    before, after = anchor.points[kept].reshape(-1, 2) - middle, found[kept].reshape(-1, 2) - middle
    matrix, inliers = cv2.estimateAffinePartial2D(before, after, ransacReprojThreshold=INLIER)
    if matrix is None or inliers.sum() < max(LEAST_POINTS, 0.4 * len(before)):
        return unknown
    return np.array([*matrix[:, 2] / grey.shape[0], np.log(np.hypot(matrix[0, 0], matrix[1, 0]))])


def camera_follow(found: Float[np.ndarray, "F 3"], source: Float[np.ndarray, "F 3"]) -> tuple[float, float]:
    """Correlation of the camera's motion with the source's, and their typical difference in percent of the picture's height.

    Correlation is NaN if the source's camera rests (moves by less than 0.2 % of the height).

    Raises:
        ValueError: If the camera's motion is not known in both for at least two frames.
    """
    both = np.isfinite(found).all(1) & np.isfinite(source).all(1)
    if both.sum() < 2:
        raise ValueError("too little is seen outside the speakers to follow the camera")
    a, b = found[both] - found[both].mean(0), source[both] - source[both].mean(0)
    unit = np.array([1.0, 1.0, 0.5])  # a zoom moves the upper edge by half the height
    difference = float(100 * np.sqrt((((a - b) * unit) ** 2).sum(1).mean()))
    moves = float(np.sqrt(((b * unit) ** 2).sum(1).mean())) > 0.002
    return (correlation_of_all(a * unit, b * unit) if moves else float("nan")), difference
