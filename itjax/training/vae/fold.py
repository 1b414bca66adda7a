"""Makes the latents of a trained VAE standard: the fixed normalisation of models/vae.py then gives mean 0, deviation 1.

Both convolutions next to the latents are 1x1x1, so that a change of scale and origin goes into their weights exactly.
"""

from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from itjax.config import VaeSizes
from itjax.models.vae import LATENT_MEAN, LATENT_STD, encode_whole

# F pixel frames · H W pixels · T latent frames · h w = H/8 W/8 · C channels


def latent_statistics(
    parameters: dict, videos: Iterable[UInt8[np.ndarray, "F H W 3"]], sizes: VaeSizes
) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, " C"]]:
    """Mean and deviation of each channel of the latents, before normalisation, over videos of one shape."""
    latents = np.concatenate([encoded(parameters, video, sizes).reshape(-1, sizes.z_dim) for video in videos])
    return latents.mean(0), latents.std(0)


def encoded(parameters: dict, video: UInt8[np.ndarray, "F H W 3"], sizes: VaeSizes) -> Float32[np.ndarray, "T h w C"]:
    """The latents of a video, before normalisation."""
    return np.asarray(_encoded(parameters, video, sizes))


@partial(jax.jit, static_argnames="sizes")
def _encoded(parameters: dict, video: Array, sizes: VaeSizes) -> Array:
    return encode_whole(parameters, video[None].astype(jnp.float32) / 127.5 - 1, sizes)[0][0]


def folded(parameters: dict, mean: Float[np.ndarray, " C"], std: Float[np.ndarray, " C"]) -> dict:
    """The same VAE with latents z' = (z - mean) / std · LATENT_STD + LATENT_MEAN instead of z."""
    scale = np.asarray(LATENT_STD) / np.maximum(std, 1e-6)
    shift = np.asarray(LATENT_MEAN) - mean * scale
    moments, latent = parameters["encoder"]["to_moments"], parameters["decoder"]["from_latent"]
    gains = np.concatenate([scale, np.ones_like(scale)])
    offsets = np.concatenate([shift, 2 * np.log(scale)])  # the log variance changes with the scale
    kernel = np.asarray(latent["kernel"], np.float64)
    to_moments = {"kernel": moments["kernel"] * gains, "bias": moments["bias"] * gains + offsets}
    from_latent = {
        "kernel": kernel / scale[:, None],
        "bias": latent["bias"] - (shift / scale) @ kernel.reshape(kernel.shape[-2:]),
    }
    single = lambda layer: jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), layer)
    return {
        "encoder": parameters["encoder"] | {"to_moments": single(to_moments)},
        "decoder": parameters["decoder"] | {"from_latent": single(from_latent)},
    }
