"""Bilinear resizing as TensorFlow 1 computes it, which the published FID and FVD are defined with."""

import numpy as np
from jaxtyping import Float32, UInt8

# N pictures · H W given pixels · h w wanted pixels


def resize_bilinear(pictures: UInt8[np.ndarray, "N H W 3"], height: int, width: int) -> Float32[np.ndarray, "N h w 3"]:
    """`tf.image.resize_bilinear` of TensorFlow 1 with its defaults, for pixels 0..255.

    Output pixel i lies at i·(input/output) of the input, so the corners at the top left coincide and the picture shifts by
    up to half a pixel; there is no antialiasing. Later resizers differ in both, and change FID and FVD.
    """
    above, below, down = _neighbours(pictures.shape[1], height)
    left, right, across = _neighbours(pictures.shape[2], width)
    across, down = across[:, None], down[:, None, None]

    def row(index: np.ndarray) -> Float32[np.ndarray, "N h w 3"]:
        rows = pictures[:, index]
        first, second = (rows[:, :, columns].astype(np.float32) for columns in (left, right))
        return first + (second - first) * across

    top, bottom = row(above), row(below)
    return top + (bottom - top) * down


def _neighbours(have: int, want: int) -> tuple[np.ndarray, np.ndarray, Float32[np.ndarray, " want"]]:
    """Indices of the two pixels that each output lies between, and its distance from the first."""
    position = np.arange(want, dtype=np.float32) * np.float32(have / want)
    low = position.astype(int)
    return low, np.minimum(low + 1, have - 1), position - low.astype(np.float32)
