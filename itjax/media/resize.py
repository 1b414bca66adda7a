"""Resizes images exactly as the official code does. No file I/O.

There is one kernel per use: bilinear with antialiasing for the image, and nearest for masks. (The image encoder's bicubic
kernel without antialiasing is in `itjax.models.clip_pixels`.)
"""

import math

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image

from itjax.media.picture_sizes import Size


def resize_and_crop(image: UInt8[np.ndarray, "H W 3"], size: Size) -> UInt8[np.ndarray, "h w 3"]:
    """Scales the image to cover `size` (height, width), bilinear with antialiasing, and centre-crops it."""
    height, width = cover_size(image.shape[:2], size)
    resized = Image.fromarray(image).resize((width, height), resample=Image.Resampling.BILINEAR)
    return crop_centre(np.asarray(resized), size)


def cover_size(source: Size, size: Size) -> Size:
    """The smallest size with the aspect ratio of `source` (apart from rounding up) that covers `size`."""
    scale = max(size[0] / source[0], size[1] / source[1])
    return math.ceil(scale * source[0]), math.ceil(scale * source[1])


def crop_centre(image: Shaped[np.ndarray, "H W ..."], size: Size) -> Shaped[np.ndarray, "h w ..."]:
    """Crops `size` around the centre; half pixels are rounded to even, as by round()."""
    top, left = (round((have - want) / 2.0) for have, want in zip(image.shape, size, strict=False))
    return image[top : top + size[0], left : left + size[1]]


def resize_nearest(image: Shaped[np.ndarray, "H W ..."], size: Size) -> Shaped[np.ndarray, "h w ..."]:
    """Nearest-neighbour resize: the pixel at floor(i · in/out), with the product in float32 as in torch."""
    rows, columns = (_nearest(have, want) for have, want in zip(image.shape, size, strict=False))
    return image[rows][:, columns]


def _nearest(have: int, want: int) -> np.ndarray:
    scale = np.float32(have) / np.float32(want)
    return np.minimum(np.floor(np.arange(want, dtype=np.float32) * scale).astype(int), have - 1)


def to_unit(image: UInt8[np.ndarray, "*dims"]) -> Float32[np.ndarray, "*dims"]:
    """Maps 0..255 to -1..1, in numpy: a compiler might turn the division into a multiplication, which rounds differently."""
    return (image.astype(np.float32) / np.float32(255) - np.float32(0.5)) * np.float32(2)
