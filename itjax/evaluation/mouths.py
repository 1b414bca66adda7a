"""Mouth opening in pictures of drawn people, by colour: the inside of a mouth has colours of its own."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from itjax.synthetic.face import BETWEEN_LIPS

# F frames · H W pixels

MARGIN = 15.0  # levels by which a pixel must be nearer to the inside's colours than to all others to count as half
SOFTNESS = 8.0  # levels over which that weight changes (scale of the sigmoid)


def opening_by_color(
    frames: UInt8[np.ndarray, "F H W 3"], areas: Sequence[Sequence[float]], around: Sequence[Sequence[int]]
) -> Float[np.ndarray, " F"]:  # fmt: skip
    """The fraction of each frame's area that shows the inside of a mouth.

    `areas`: (left, top, right, bottom) in pixels per frame: where a mouth may be, from the ground truth (`mouth_area`).
    `around`: colours that are not inside a mouth: skin, lips, beard. NaN for an area outside the picture.
    """
    inside, outside = np.asarray(BETWEEN_LIPS, np.float32), np.asarray(around, np.float32)
    shares = []
    for picture, (left, top, right, bottom) in zip(frames, areas, strict=True):
        rows, columns = (slice(max(0, round(a)), max(0, round(b))) for a, b in ((top, bottom), (left, right)))
        area = picture[rows, columns].astype(np.float32)
        if not area.size:
            shares.append(np.nan)
            continue
        inner, outer = (np.linalg.norm(area[:, :, None] - colors, axis=-1).min(-1) for colors in (inside, outside))
        shares.append(float((1 / (1 + np.exp((inner - outer + MARGIN).clip(-300, 300) / SOFTNESS))).mean()))
    return np.array(shares)
