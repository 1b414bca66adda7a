"""Noise for each chunk, read from a file."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from itjax.errors import UserError
from itjax.sampling.plan import ChunkPlan

# T latent frames · h w latent grid · C latent channels


class NoiseFile(NamedTuple):
    """Noise from a file with tensors noise_0, noise_1 ..., each [C, T, h, w]. `shape` is that of a chunk, [T, h, w, C]."""

    path: Path
    shape: tuple[int, ...]

    def check(self, chunks: list[ChunkPlan]) -> None:
        """Checks, before any sampling, that the file has the noise of all chunks.

        Raises:
            UserError: If the file cannot be read, or a chunk's noise is missing or has the wrong shape.
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
                raise UserError(f"--noise {self.path} has no {name}, but {len(chunks)} chunks will be generated")
            if shapes[name] != expected:
                raise UserError(f"--noise {self.path}: {name} has shape {list(shapes[name])}, expected {list(expected)}")

    def read(self, number: int) -> Float[np.ndarray, "T h w C"]:
        """The noise of chunk `number`, channels last."""
        with safe_open(self.path, "numpy") as file:
            return np.moveaxis(file.get_tensor(f"noise_{number}").astype(np.float32), 0, -1)
