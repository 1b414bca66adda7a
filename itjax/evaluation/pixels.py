"""Numbers of each frame that need no face: colour, sharpness, and the step from the previous frame."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

# F frames · H W pixels


class PixelCurves(NamedTuple):
    """One value per frame. `step`: mean absolute difference from the previous frame in levels of 255, 0 for the first.

    `color`: mean RGB. `sharpness`: variance of the Laplacian of the grey picture.
    """

    color: Float[np.ndarray, "F 3"]
    sharpness: Float[np.ndarray, " F"]
    step: Float[np.ndarray, " F"]

    @property
    def brightness(self) -> Float[np.ndarray, " F"]:
        """Mean luma (BT.601) in levels of 255."""
        return self.color @ np.array([0.299, 0.587, 0.114])


def pixel_curves(frames: UInt8[np.ndarray, "F H W 3"], before: UInt8[np.ndarray, "H W 3"] | None = None) -> PixelCurves:
    """The curves of a piece of a video; `before` is the frame before it, None at the start."""
    color, sharpness, step = [], [], []
    for frame in frames:
        color.append(cv2.mean(frame)[:3])
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        sharpness.append(float(cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_32F))[1].item()) ** 2)
        step.append(0.0 if before is None else float(np.mean(cv2.mean(cv2.absdiff(frame, before))[:3])))
        before = frame
    return PixelCurves(np.array(color).reshape(-1, 3), np.array(sharpness), np.array(step))


def joined(pieces: list[PixelCurves]) -> PixelCurves:
    """The curves of a whole video from those of its pieces."""
    return PixelCurves(*(np.concatenate(parts) for parts in zip(*pieces, strict=True)))
