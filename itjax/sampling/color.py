"""Colour correction: frames get the reference's mean and standard deviation in CIE Lab (Reinhard et al., 2001)."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# sRGB to XYZ (IEC 61966-2-1) and the D65 white point, 2° observer
_RGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_XYZ_TO_RGB = np.linalg.inv(_RGB_TO_XYZ).astype(np.float32)
_WHITE = np.array([0.95047, 1.0, 1.08883], np.float32)


class ColorStatistics(NamedTuple):
    """Mean and standard deviation of a picture's L, a and b."""

    mean: Float[Array, " 3"]
    std: Float[Array, " 3"]


def lab_from_rgb(rgb: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    """Converts sRGB in 0..1 to CIE Lab (D65)."""
    linear = jnp.where(rgb > 0.04045, jnp.power(jnp.maximum((rgb + 0.055) / 1.055, 1e-12), 2.4), rgb / 12.92)
    xyz = linear @ _RGB_TO_XYZ.T.astype(np.float32) / _WHITE
    f = jnp.where(xyz > 0.008856, jnp.cbrt(xyz), 7.787 * xyz + 16.0 / 116.0)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return jnp.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def rgb_from_lab(lab: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    """Converts CIE Lab (D65) to sRGB, clipped to 0..1."""
    y = (lab[..., 0] + 16.0) / 116.0
    x = lab[..., 1] / 500.0 + y
    z = jnp.maximum(y - lab[..., 2] / 200.0, 0.0)
    f = jnp.stack([x, y, z], axis=-1)
    xyz = jnp.where(f > 0.2068966, f**3, (f - 16.0 / 116.0) / 7.787) * _WHITE
    linear = xyz @ _XYZ_TO_RGB.T
    rgb = jnp.where(linear > 0.0031308, 1.055 * jnp.power(jnp.maximum(linear, 1e-12), 1 / 2.4) - 0.055, linear * 12.92)
    return jnp.clip(rgb, 0.0, 1.0)


def color_statistics(picture: Float[Array, "H W 3"]) -> ColorStatistics:
    """Lab statistics of a picture in -1..1."""
    lab = lab_from_rgb((picture + 1) / 2).reshape(-1, 3)
    return ColorStatistics(lab.mean(0), lab.std(0))


def match_colors(
    frames: Float[Array, "F H W 3"], target: ColorStatistics, strength: float | Float[Array, ""]
) -> Float[Array, "F H W 3"]:
    """Matches each frame (in -1..1) to the target's Lab statistics: (1-strength)·frame + strength·matched."""
    lab = lab_from_rgb((frames + 1) / 2)
    mean, std = lab.mean((1, 2), keepdims=True), lab.std((1, 2), keepdims=True)
    # a flat channel has no contrast to stretch: it takes the target's mean
    matched = jnp.where(std == 0, target.mean, (lab - mean) * (target.std / jnp.where(std == 0, 1.0, std)) + target.mean)
    matched = rgb_from_lab(matched) * 2 - 1
    return (1 - strength) * frames + strength * matched
