"""Noise for each chunk: drawn from the seed and the chunk's number, or read from a file made elsewhere."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from safetensors import SafetensorError, safe_open

from itjax.errors import UserError
from itjax.sampling.plan import ChunkPlan

# T latent frames · h w latent grid · C latent channels


class SeededNoise(NamedTuple):
    """Normal noise that depends on the seed and the chunk's number alone, so a resumed run draws the same."""

    seed: int
    shape: tuple[int, ...]

    def read(self, number: int) -> Float[Array, "T h w C"]:
        """The noise of chunk `number`."""
        key = jax.random.fold_in(jax.random.key(self.seed), number)
        return jax.random.normal(key, self.shape, jnp.float32)


class NoiseFile(NamedTuple):
    """Noise made elsewhere: noise_0, noise_1 ..., each [C, T, h, w]. `shape` is what a chunk takes, [T, h, w, C]."""

    path: Path
    shape: tuple[int, ...]

    def check(self, chunks: list[ChunkPlan]) -> None:
        """Checks, before the work, that the file has the noise of all chunks.

        Raises:
            UserError: where a chunk's noise is missing or of another shape.
        """
        expected = (self.shape[-1], *self.shape[:-1])
        try:
            with safe_open(self.path, "numpy") as file:
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UserError(f"--noise {self.path} cannot be read: {error}") from error
        for chunk in chunks:
            name = f"noise_{chunk.number}"
            if name not in shapes:
                raise UserError(f"--noise {self.path} has no {name}, and {len(chunks)} chunks are to be made")
            if shapes[name] != expected:
                raise UserError(f"--noise {self.path}: {name} is {list(shapes[name])}, expected {list(expected)}")

    def read(self, number: int) -> Float[np.ndarray, "T h w C"]:
        """The noise of chunk `number`, its axes in our order."""
        with safe_open(self.path, "numpy") as file:
            return np.moveaxis(file.get_tensor(f"noise_{number}").astype(np.float32), 0, -1)
