"""Resizing pictures exactly as the official code does. Knows no files.

Three kernels, one for each use: bilinear with antialias for the picture, nearest for masks, bicubic without antialias
for the image encoder.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Shaped, UInt8
from PIL import Image

from itjax.conditioning.sizes import Size

CLIP_SIZE = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CUBIC = -0.75  # the free parameter of torch's cubic kernel


def resize_and_crop(image: UInt8[np.ndarray, "H W 3"], size: Size) -> UInt8[np.ndarray, "h w 3"]:
    """The picture scaled to cover `size` (height, width), bilinear with antialias, and cut to it around the centre."""
    height, width = covering(image.shape[:2], size)
    resized = Image.fromarray(image).resize((width, height), resample=Image.Resampling.BILINEAR)
    return crop_centre(np.asarray(resized), size)


def covering(source: Size, size: Size) -> Size:
    """The smallest size of `source`'s shape (up to rounding up) that covers `size`."""
    scale = max(size[0] / source[0], size[1] / source[1])
    return math.ceil(scale * source[0]), math.ceil(scale * source[1])


def crop_centre(image: Shaped[np.ndarray, "H W ..."], size: Size) -> Shaped[np.ndarray, "h w ..."]:
    """`size` out of the middle; a half pixel goes to the even side, as round() has it."""
    top, left = (round((have - want) / 2.0) for have, want in zip(image.shape, size, strict=False))
    return image[top : top + size[0], left : left + size[1]]


def resize_nearest(image: Shaped[np.ndarray, "H W ..."], size: Size) -> Shaped[np.ndarray, "h w ..."]:
    """The pixel at floor(i · in/out), the product in float32 as torch computes it."""
    rows, columns = (_nearest(have, want) for have, want in zip(image.shape, size, strict=False))
    return image[rows][:, columns]


def _nearest(have: int, want: int) -> np.ndarray:
    scale = np.float32(have) / np.float32(want)
    return np.minimum(np.floor(np.arange(want, dtype=np.float32) * scale).astype(int), have - 1)


def to_unit(image: UInt8[np.ndarray, "*dims"]) -> Float32[np.ndarray, "*dims"]:
    """0..255 -> -1..1. In numpy: a compiler might divide by multiplying, which rounds otherwise."""
    return (image.astype(np.float32) / np.float32(255) - np.float32(0.5)) * np.float32(2)


def clip_pixels(image: Float[Array | np.ndarray, "h w 3"], size: int = CLIP_SIZE) -> Float[Array, "{size} {size} 3"]:
    """What the image encoder takes, from a picture in -1..1: bicubic to a square (shape not kept), CLIP's whitening.

    The kernel is torch's (a = -0.75, no antialias), which neither PIL nor jax.image has (a = -0.5, antialias): hence
    two small matrices of our own. They are constants, so the function can be compiled.
    """
    rows, columns = cubic_matrix(image.shape[0], size), cubic_matrix(image.shape[1], size)
    highest = jax.lax.Precision.HIGHEST  # else bfloat16 products on a TPU: three digits
    resized = jnp.einsum("yh,hwc->ywc", rows, jnp.asarray(image), precision=highest)
    resized = jnp.einsum("xw,ywc->yxc", columns, resized, precision=highest)
    return (resized * 0.5 + 0.5 - jnp.asarray(CLIP_MEAN)) / jnp.asarray(CLIP_STD)


def cubic_matrix(have: int, want: int) -> Float32[np.ndarray, "{want} {have}"]:
    """Row i holds the weights of the four source pixels around (i + 1/2)·have/want - 1/2; edge pixels repeat beyond.

    Scale and places are rounded to float32 where torch rounds them (a fused multiply-add): at a thousand pixels a place
    in float64 would show in the fourth digit.
    """
    scale = np.float64(np.float32(have) / np.float32(want))
    place = (scale * (np.arange(want) + 0.5) - 0.5).astype(np.float32)
    left = np.floor(place)
    matrix = np.zeros((want, have), np.float32)
    for tap in range(-1, 3):
        source = np.clip(left.astype(int) + tap, 0, have - 1)
        np.add.at(matrix, (np.arange(want), source), _cubic(np.abs(place - left - np.float32(tap))))
    return matrix


def _cubic(x: Float32[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = CUBIC * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, far).astype(np.float32)
