"""The camera's motion: that of what is seen outside the speakers, from points tracked by optical flow."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from itjax.evaluation.curves import correlation_of_all

# F frames · H W pixels

LONGEST_SIDE = 256  # pixels to which pictures are scaled for this: in small ones the flow's window would be too large
ANCHOR_FRAMES = 25  # motion is measured from a frame of the last second, so that errors of single frames do not add up
LOST_FRAMES = 100  # for so long, a lost view is looked for again; then the camera is taken to be where it was last
POINTS, QUALITY, DISTANCE = 80, 0.02, 5  # number of tracked corners, quality relative to the best, pixels between them
LEAST_POINTS = 10  # fewer do not tell the camera from an object
LEAST_KNOWN = 0.5  # fraction of frames in which the camera must be known to be compared
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
        self._last: tuple[int, np.ndarray, np.ndarray, np.ndarray] | None = None  # the frame before, if it is known
        self._count = 0

    def __call__(
        self, frames: UInt8[np.ndarray, "F H W 3"], inside: Bool[np.ndarray, "F H W"]
    ) -> Float[np.ndarray, "F 3"]:  # fmt: skip
        """Position (x, y) in picture heights and log zoom of each frame of a piece, relative to the video's first frame.

        `inside`: pixels of the speakers, which are ignored. NaN where too few points are seen outside them.
        """
        positions = []
        for frame, mask in zip(frames, inside, strict=True):
            scale = LONGEST_SIDE / max(frame.shape[:2])
            size = (max(8, round(frame.shape[1] * scale)), max(8, round(frame.shape[0] * scale)))
            how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
            grey = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=how)
            outside = cv2.resize((~mask).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            positions.append(self._position(grey, outside))
            self._count += 1
        return np.array(positions).reshape(-1, 3)

    def _position(self, grey: UInt8[np.ndarray, "h w"], outside: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, " 3"]:
        """The camera's position in the next frame."""
        anchor = self._anchor
        position = np.zeros(3) if anchor is None else _moved(anchor, grey)
        if anchor is not None and not np.isfinite(position).all():
            if self._last is not None:  # the camera may have left what the anchor shows
                anchor = self._anchor = _anchor(*self._last)
                position = _moved(anchor, grey)
            elif self._count - anchor.number >= LOST_FRAMES:
                position = anchor.position
        known = bool(np.isfinite(position).all())
        self._last = (self._count, grey, outside, position) if known else None
        if self._last is not None and (anchor is None or self._count - anchor.number >= ANCHOR_FRAMES):
            self._anchor = _anchor(*self._last)
        return position


def _anchor(
    number: int, grey: UInt8[np.ndarray, "h w"], outside: UInt8[np.ndarray, "h w"], position: Float[np.ndarray, " 3"]
) -> _Anchor:  # fmt: skip
    return _Anchor(number, grey, cv2.goodFeaturesToTrack(grey, POINTS, QUALITY, DISTANCE, mask=outside), position)


def _moved(anchor: _Anchor, grey: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, " 3"]:
    return _after(anchor.position, _motion(anchor, grey))


def _after(position: Float[np.ndarray, " 3"], motion: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " 3"]:
    """The position after a further motion: a zoom also enlarges how far the picture is from where it was."""
    return np.array([*position[:2] * np.exp(motion[2]), position[2]]) + motion


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
        ValueError: If the camera's motion is not known in both for at least half of the frames.
    """
    both = np.isfinite(found).all(1) & np.isfinite(source).all(1)
    if both.sum() < max(2, LEAST_KNOWN * len(both)):
        raise ValueError("too little is seen outside the speakers to follow the camera")
    a, b = found[both] - found[both].mean(0), source[both] - source[both].mean(0)
    unit = np.array([1.0, 1.0, 0.5])  # a zoom moves the upper edge by half the height
    difference = float(100 * np.sqrt((((a - b) * unit) ** 2).sum(1).mean()))
    moves = float(np.sqrt(((b * unit) ** 2).sum(1).mean())) > 0.002
    return (correlation_of_all(a * unit, b * unit) if moves else float("nan")), difference
