"""Noise for each chunk, read from a file."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from itjax.errors import SettingError
from itjax.sampling.plan import ChunkPlan

# T latent frames · h w latent grid · C latent channels

DTYPES = ("F32", "F64", "F16", "BF16")  # of noise in files, as safetensors names them
LARGEST = 100.0  # of noise, which is standard normal: numbers beyond about 6 are not drawn


class NoiseFile(NamedTuple):
    """Noise from a file with tensors noise_0, noise_1 ..., each [C, T, h, w]. `shape` is that of a chunk, [T, h, w, C]."""

    path: Path
    shape: tuple[int, ...]

    def check(self, chunks: list[ChunkPlan]) -> None:
        """Checks, before any sampling, that the file has the noise of all chunks.

        Raises:
            SettingError: If the file cannot be read, or a chunk's noise is missing, of another shape or type, or has
                numbers that noise does not have.
        """
        expected = (self.shape[-1], *self.shape[:-1])
        if not os.path.isfile(self.path):  # a pipe would be waited for
            reason = "not a file: a folder, pipe or device" if os.path.exists(self.path) else "no such file"
            raise SettingError(f"{{noise}} {self.path} cannot be read: {reason}")
        try:
            with safe_open(self.path, "numpy") as file:
                names = set(file.keys())
                for chunk in chunks:
                    name = f"noise_{chunk.number}"
                    if name not in names:
                        raise SettingError(
                            f"{{noise}} {self.path} has no {name}, but {len(chunks)} chunks will be generated"
                        )
                    part = file.get_slice(name)
                    shape, dtype = tuple(part.get_shape()), part.get_dtype()
                    if shape != expected:
                        raise SettingError(
                            f"{{noise}} {self.path}: {name} has shape {list(shape)}, expected {list(expected)}"
                        )
                    if dtype not in DTYPES:
                        raise SettingError(f"{{noise}} {self.path}: {name} is {dtype}; must be one of {', '.join(DTYPES)}")
                    if not (np.abs(file.get_tensor(name).astype(np.float32)) <= LARGEST).all():  # or NaN
                        beyond = f"numbers beyond -{LARGEST:g}..{LARGEST:g}, or that are not finite"
                        raise SettingError(f"{{noise}} {self.path}: {name} has {beyond}")
        except (OSError, SafetensorError) as error:
            raise SettingError(f"{{noise}} {self.path} cannot be read: {error}") from error

    def read(self, number: int) -> Float[np.ndarray, "T h w C"]:
        """The noise of chunk `number`, channels last."""
        with safe_open(self.path, "numpy") as file:
            return np.moveaxis(file.get_tensor(f"noise_{number}").astype(np.float32), 0, -1)
