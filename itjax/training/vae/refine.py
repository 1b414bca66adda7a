"""Trains a VAE further while a DiT knows its latents: these stay, and what is decoded survives being encoded again.

The streaming loop decodes a chunk's last frames and encodes them again as the next chunk's context. What the VAE changes in
them shows as a step at the border of the chunks, and adds up over a long video. With the latents z0 = E0(x) of the VAE that
is refined, and z = z0 + noise, since a DiT's latents are not exactly an encoder's,

loss = reconstruction(D(z), x) + AGAIN·reconstruction(D(E(y)), y) + LATENTS·(|E(x) - z0|² + |E(y) - z|² + ...)

where y are the last frames of D(z), as many as a chunk's context has, and the dots are the log variances of E(x).
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, UInt8

from itjax.config import VaeSizes
from itjax.models.vae import LATENT_STD, decode_whole, encode_whole
from itjax.training.vae.measure import CONTEXT
from itjax.training.vae.objective import of_pictures, reconstruction_loss

# B batch · F pixel frames · H W pixels

AGAIN = 2.0
VISIBLE = 0.001  # a difference from one frame to the next is seen where errors of still pictures are not
LATENTS = 0.1  # of normalised latents
LOG_VARIANCES = 0.01  # relative to those: nothing reads them but another training
NOISE = 0.2  # of normalised latents; each clip's is drawn from 0 to this


def loss(
    parameters: dict, video: UInt8[Array, "B F H W 3"], mouths: Float[Array, "B F 4"], key: Key[Array, ""],
    sizes: VaeSizes, mouth_weight: Float[Array, ""], dtype: DTypeLike, start: dict,
) -> tuple[Float[Array, ""], dict[str, Array]]:  # fmt: skip
    """The loss of a batch of more than CONTEXT frames, and its metrics. `start`: the parameters that are refined."""
    true, std = video.astype(jnp.float32) / 127.5 - 1, jnp.asarray(LATENT_STD)
    known, known_variance = jax.lax.stop_gradient(encode_whole(start, true, sizes, dtype))
    mean, log_variance = encode_whole(parameters, true, sizes, dtype)
    for_scale, for_noise = jax.random.split(key)
    scale = NOISE * std * jax.random.uniform(for_scale, (len(video), 1, 1, 1, 1))
    z = known + scale * jax.random.normal(for_noise, known.shape)
    made = decode_whole(parameters, z, sizes, dtype)
    reconstruction, metrics = of_pictures(made, true, mouths, mouth_weight)
    ends = jnp.clip(made[:, -CONTEXT:], -1, 1)
    z_again, _ = encode_whole(parameters, ends, sizes, dtype)
    ends_again = decode_whole(parameters, z_again, sizes, dtype)
    again = reconstruction_loss(ends_again, ends, jnp.ones(ends.shape[:-1]), VISIBLE)
    later = z_again.shape[1] - 1  # the first latent is one frame's: there is none of it in z
    apart = lambda one, other: jnp.mean(((one - other) / std) ** 2)
    latents = apart(mean, known) + apart(z_again[:, -later:], z[:, -later:])
    latents += LOG_VARIANCES * jnp.mean((log_variance - known_variance) ** 2)
    return reconstruction + AGAIN * again + LATENTS * latents, metrics | {"again": again, "latents": latents}
