"""How far mouths are open in a picture of drawn people, by colour: what lies between lips has colours of its own."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from itjax.synthetic.face import BETWEEN_LIPS

# F frames · H W pixels

NEARER = 15.0  # levels by which a colour must be nearer to the inside's than to all others, to count as half
SHARP = 8.0  # levels more or less than that, over which that grows


def opening_by_color(
    frames: UInt8[np.ndarray, "F H W 3"], areas: Sequence[Sequence[float]], around: Sequence[Sequence[int]]
) -> Float[np.ndarray, " F"]:  # fmt: skip
    """The share of each frame's area that shows the inside of a mouth.

    `areas`: (left, top, right, bottom) in pixels, one a frame: where any mouth would be, as the truth has them
    (`mouth_area`). `around`: the colours that are not inside: skin, lips, beard. NaN where an area is outside of the
    picture.
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
        shares.append(float((1 / (1 + np.exp((inner - outer + NEARER).clip(-300, 300) / SHARP))).mean()))
    return np.array(shares)
