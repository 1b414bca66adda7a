"""Resizes images exactly as the official code does. No file I/O.

There is one kernel per use: bilinear with antialiasing for the image, and nearest for masks. (The image encoder's bicubic
kernel without antialiasing is in `itjax.models.clip_pixels`.)
"""

import math

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image

from itjax.media.picture_sizes import Size

WHOLE = 2**25  # pixels: the largest scaled image that is made before it is cropped


def resize_and_crop(image: UInt8[np.ndarray, "H W 3"], size: Size) -> UInt8[np.ndarray, "h w 3"]:
    """Scales the image to cover `size` (height, width), bilinear with antialiasing, and centre-crops it."""
    height, width = cover_size(image.shape[:2], size)
    if height * width > WHOLE:
        return _crop_and_resize(image, (height, width), size)
    resized = Image.fromarray(image).resize((width, height), resample=Image.Resampling.BILINEAR)
    return crop_centre(np.asarray(resized), size)


def _crop_and_resize(image: UInt8[np.ndarray, "H W 3"], cover: Size, size: Size) -> UInt8[np.ndarray, "h w 3"]:
    """The centre of the image scaled to `cover`, without making the rest: for a line of pixels, that would be gigabytes.

    Equal to scaling all of it except for rounding (by one step of 255), since positions in the image are rounded otherwise.
    """
    spans = [_span(*lengths) for lengths in zip(image.shape, cover, size, strict=False)]
    (rows, top, bottom), (columns, left, right) = spans
    part = Image.fromarray(np.ascontiguousarray(image[rows, columns]))
    return np.asarray(part.resize(size[::-1], Image.Resampling.BILINEAR, (left, top, right, bottom)))


def _span(have: int, whole: int, want: int) -> tuple[slice, float, float]:
    """Along one axis: the pixels that the centre is made of, and where, within these, it starts and stops."""
    step = have / whole
    start = round((whole - want) / 2.0) * step
    stop = min(float(have), start + want * step)
    reach = 1 + math.ceil(step)  # of the kernel, beyond the centre
    first, last = max(0, math.floor(start) - reach), min(have, math.ceil(stop) + reach)
    return slice(first, last), start - first, stop - first


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
    rows, columns = (_nearest(have, want, 0, want) for have, want in zip(image.shape, size, strict=False))
    return image[rows[:, None], columns]


def cover_nearest(image: Shaped[np.ndarray, "H W ..."], size: Size) -> Shaped[np.ndarray, "h w ..."]:
    """As `resize_and_crop`, with the nearest pixels: the centre of `resize_nearest`, without making the rest."""
    cover = cover_size(image.shape[:2], size)
    starts = [round((whole - want) / 2.0) for whole, want in zip(cover, size, strict=True)]
    rows, columns = (_nearest(*lengths) for lengths in zip(image.shape, cover, starts, size, strict=False))
    return image[rows[:, None], columns]


def _nearest(have: int, whole: int, start: int, count: int) -> np.ndarray:
    """Of `have` pixels scaled to `whole`, the places that pixels start..start+count-1 are taken from."""
    scale = np.float32(have) / np.float32(whole)
    return np.minimum(np.floor(np.arange(start, start + count).astype(np.float32) * scale).astype(int), have - 1)


def to_unit(image: UInt8[np.ndarray, "*dims"]) -> Float32[np.ndarray, "*dims"]:
    """Maps 0..255 to -1..1, in numpy: a compiler might turn the division into a multiplication, which rounds differently."""
    return (image.astype(np.float32) / np.float32(255) - np.float32(0.5)) * np.float32(2)
