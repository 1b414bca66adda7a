"""Linear readings of rows of pixels: ridge regression, and the subspace in which the pictures of one person lie."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

# N rows · D pixels of a cut-out, three colours each · K values that are read

NOISE = 10.0  # levels: ridge regression is least squares for pictures with this noise
COMPONENTS = 30
LEFT = 6.0  # levels that may be left of a pixel in any case
LEAST_CONTRAST = 0.5  # of the lightness, relative to the mean of the drawings


class Linear(NamedTuple):
    """values = (pixels - mean) @ weights + offset."""

    mean: Float32[np.ndarray, " D"]
    weights: Float32[np.ndarray, "D K"]
    offset: Float32[np.ndarray, " K"]

    def __call__(self, rows: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, "N K"]:
        """The values of each row."""
        return (rows - self.mean) @ self.weights + self.offset


class Subspace(NamedTuple):
    """How the person's cut-outs vary: their mean, principal directions, and the variance per pixel that is left.

    `covered`: how much each pixel counts, because it shows the person and not what is behind it; its sum is 1.
    """

    mean: Float32[np.ndarray, " D"]
    directions: Float32[np.ndarray, "K D"]
    left: Float32[np.ndarray, " D"]
    covered: Float32[np.ndarray, " D"]

    def misfit(self, rows: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, " N"]:
        """How unlike the person each cut-out is: about 1 for drawings of it, infinite where there is nothing to see."""
        light = lambda pixel_rows: pixel_rows.reshape(len(pixel_rows), -1, 3).mean(-1)
        counts = self.covered[::3] * 3
        contrast = lambda values: np.sqrt((values - (values @ counts)[:, None]) ** 2 @ counts)
        flat = contrast(light(rows)) < LEAST_CONTRAST * contrast(light(self.mean[None]))
        centered = rows - self.mean
        rest = centered - (centered @ self.directions.T) @ self.directions
        return np.where(flat, np.inf, (rest**2 / self.left) @ self.covered)


def recolored(rng: np.random.Generator, rows: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, "N D"]:
    """Shifts the colours and the contrast of each row a little."""
    shift, gain = rng.normal(0, 6, (len(rows), 1, 3)), rng.normal(1, 0.03, (len(rows), 1, 1))
    return (rows.reshape(len(rows), -1, 3) * gain + shift).reshape(rows.shape).astype(np.float32)


def ridge(rows: Float32[np.ndarray, "N D"], values: Float32[np.ndarray, "N K"]) -> Linear:
    """Linear readings of the values from the rows: least squares for rows with noise of `NOISE` levels."""
    mean, offset = rows.mean(0), values.mean(0)
    centered = rows - mean
    gram = centered @ centered.T + len(rows) * NOISE**2 * np.eye(len(rows), dtype=np.float32)
    return Linear(mean, centered.T @ np.linalg.solve(gram, values - offset), offset)


def subspace(rows: Float32[np.ndarray, "N D"], covered: Float32[np.ndarray, " D"]) -> Subspace:
    """The subspace of the rows; `covered` says how much each pixel counts."""
    mean = rows.mean(0)
    centered = rows - mean
    energies, mixtures = np.linalg.eigh(centered @ centered.T)
    directions = (centered.T @ mixtures[:, -COMPONENTS:] / np.sqrt(energies[-COMPONENTS:])).T
    rest = centered - (centered @ directions.T) @ directions
    return Subspace(mean, directions, (rest**2).mean(0) + LEFT**2, covered / covered.sum())
