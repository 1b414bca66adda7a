"""Image preprocessing for CLIP: torch's bicubic resize and CLIP's normalisation. Can be compiled."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

CLIP_SIZE = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CUBIC = -0.75  # the free parameter of torch's cubic kernel


def clip_pixels(image: Float[Array | np.ndarray, "h w 3"], size: int = CLIP_SIZE) -> Float[Array, "{size} {size} 3"]:
    """Prepares an image in -1..1 for CLIP: bicubic resize to a square (ignoring the aspect ratio), then normalisation.

    The kernel is torch's (a = -0.75, no antialiasing). PIL and jax.image have only a = -0.5 with antialiasing, hence the
    two small matrices. They are constants, so the function can be compiled.
    """
    rows, columns = cubic_matrix(image.shape[0], size), cubic_matrix(image.shape[1], size)
    highest = jax.lax.Precision.HIGHEST  # by default, a TPU multiplies in bfloat16, which leaves three digits
    resized = jnp.einsum("yh,hwc->ywc", rows, jnp.asarray(image), precision=highest)
    resized = jnp.einsum("xw,ywc->yxc", columns, resized, precision=highest)
    return (resized * 0.5 + 0.5 - jnp.asarray(CLIP_MEAN)) / jnp.asarray(CLIP_STD)


def cubic_matrix(have: int, want: int) -> Float32[np.ndarray, "{want} {have}"]:
    """Row i holds the weights of the four source pixels around (i + 1/2)·have/want - 1/2; edge pixels are replicated.

    Scale and coordinates are rounded to float32 where torch rounds them (a fused multiply-add): for a thousand pixels,
    float64 coordinates would change the fourth digit of the result.
    """
    scale = np.float64(np.float32(have) / np.float32(want))
    coordinate = (scale * (np.arange(want) + 0.5) - 0.5).astype(np.float32)
    left = np.floor(coordinate)
    matrix = np.zeros((want, have), np.float32)
    for tap in range(-1, 3):
        source = np.clip(left.astype(int) + tap, 0, have - 1)
        np.add.at(matrix, (np.arange(want), source), _cubic(np.abs(coordinate - left - np.float32(tap))))
    return matrix


def _cubic(x: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    inner = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    outer = CUBIC * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, inner, outer).astype(np.float32)
