"""Reads how far a drawn person's mouth is open, in pictures whose true mouth position is known.

The reader is a ridge regression on the pixels around the mouth, made for one person: the clip is drawn again with the same
person, room and motion but random mouths. So it never sees the mouths that it is to read.
"""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from itjax.synthetic import scene
from itjax.synthetic.clip import Clip
from itjax.synthetic.mouth import Mouth

# F frames · H W pixels · D pixels and colours of a cut-out

WIDTH, HEIGHT = 18, 14  # pixels of the cut-out
MARGIN = 0.15  # of the mouth's area, on each side
AGAIN = 4  # times that the clip is drawn with random mouths
RIDGE = 5.0

Reader = Callable[[UInt8[np.ndarray, "F H W 3"]], Float[np.ndarray, " F"]]


def learn(clip: Clip, boxes: Float[np.ndarray, "F 4"]) -> Reader:
    """A reader of the opening (about 0 to 1, the jaw's parameter) of the only person in the clip.

    `boxes`: `FacePositions.mouth_area` in each frame, which does not depend on the mouth.
    """
    rng = np.random.default_rng(clip.seed)
    views, jaws = [], []
    for _ in range(AGAIN):
        mouth = Mouth(*rng.uniform(0, 1, (5, clip.num_frames)))
        mouth = mouth._replace(jaw=mouth.jaw * (rng.random(clip.num_frames) < 0.8))  # shut in a fifth of the frames
        frames = [picture for picture, _ in scene.frames(clip.scene, (mouth,), clip.height, clip.width)]
        views.append(_cut(np.stack(frames), boxes))
        jaws.append(mouth.jaw)
    pixels, jaw = np.concatenate(views), np.concatenate(jaws)
    mean, middle = pixels.mean(0), jaw.mean()
    centred = pixels - mean
    weights = centred.T @ np.linalg.solve(centred @ centred.T + RIDGE * np.eye(len(jaw)), jaw - middle)
    return partial(_read, boxes=boxes, mean=mean, weights=weights, middle=middle)


def _read(
    frames: UInt8[np.ndarray, "F H W 3"], boxes: np.ndarray, mean: np.ndarray, weights: np.ndarray, middle: float
) -> Float[np.ndarray, " F"]:
    return (_cut(frames, boxes[: len(frames)]) - mean) @ weights + middle


def _cut(frames: UInt8[np.ndarray, "F H W 3"], boxes: Float[np.ndarray, "F 4"]) -> Float32[np.ndarray, "F D"]:
    """The surroundings of the mouth at a fixed size, as rows of pixels in 0..1."""
    cuts = []
    for frame, (left, top, right, bottom) in zip(frames, boxes, strict=True):
        step_x, step_y = (right - left) * (1 + 2 * MARGIN) / WIDTH, (bottom - top) * (1 + 2 * MARGIN) / HEIGHT
        at_x, at_y = left - MARGIN * (right - left) + step_x / 2, top - MARGIN * (bottom - top) + step_y / 2
        matrix = np.array([[step_x, 0, at_x], [0, step_y, at_y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cuts.append(cv2.warpAffine(frame, matrix, (WIDTH, HEIGHT), flags=flags, borderMode=cv2.BORDER_REPLICATE))
    return np.stack(cuts).reshape(len(cuts), -1).astype(np.float32) / 255
