"""Noise for each chunk, drawn from the seed and the chunk's number."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from itjax.compilation import JitForFewCalls

# T latent frames · h w latent grid · C latent channels


@partial(JitForFewCalls, static_argnums=1)
def _normal(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.normal(key, shape, jnp.float32)


class SeededNoise(NamedTuple):
    """Normal noise that depends only on the seed and the chunk's number, so a resumed run draws the same noise."""

    seed: int
    shape: tuple[int, ...]

    def read(self, number: int) -> Float[Array, "T h w C"]:
        """The noise of chunk `number`."""
        key = jax.random.fold_in(jax.random.key(self.seed), number)
        return _normal(key, self.shape)
