"""Learns to read one drawn person's pose, mouth and brows from pictures, by drawing that person many times.

Each reading is a ridge regression from pixels, after supervised descent (Xiong and De la Torre, CVPR 2013): a cut-out at a
guessed place tells how far the guess is off, three times, each time trained on smaller errors. Nothing is kept on disk: the
drawings of a person come from a fixed seed.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from itjax.evaluation.drawn_views import (
    CANVAS_CENTER,
    Grid,
    Place,
    canvas_places,
    coverage,
    cut,
    pixels,
    random_appearances,
    random_walls,
    views,
    without,
)
from itjax.synthetic.face import BETWEEN_LIPS, MAX_GAP, MOUTH_POSITION, Identity, darken

# N drawings · D pixels of a cut-out, three colours each · K values that are read

HEAD = Grid(-1.4, -1.25, 2.8, 2.8, 10.0)
MOUTH = Grid(-0.5, -0.4, 1.0, 0.8, 18.0)
BROWS = Grid(-0.7, -0.32, 1.4, 0.6, 16.0)
BROWS_POSITION = (0.0, -0.36, 0.80)
SPREADS = ((0.25, 0.15, 0.20), (0.08, 0.05, 0.07), (0.03, 0.02, 0.03))  # of x and y, log size, roll, in each step
ANGLE_SPREAD = 0.06  # of yaw and pitch, where mouth and brows are cut out
DRAWINGS = 160
NOISE = 6.0  # levels: ridge regression is least squares for pictures with this noise
BLURS = (0.0, 0.7, 1.4)  # pixels
COMPONENTS = 40
LEAST_CONTRAST = 0.5  # of the lightness, relative to the mean of the drawings
MARGIN, SOFTNESS = 15.0, 10.0  # levels, as in mouths.py


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


class PersonModel(NamedTuple):
    """Readings for one person at one size."""

    steps: tuple[Linear, ...]  # the errors of x, y, log size, roll; yaw and pitch
    mouth: Linear
    brows: Linear
    likeness: Subspace
    around: tuple[Any, ...]  # colours that are not inside the mouth


def learn(who: Identity, picture: UInt8[np.ndarray, "H W 3"], place: Place) -> PersonModel:
    """Learns from drawings as large as the head that is at `place` in a picture, in front of what is behind it there."""
    rng, size = np.random.default_rng(7), place.size
    shown = random_appearances(rng, DRAWINGS)
    walls = random_walls(rng, DRAWINGS, without(picture, place, who), place)
    half = DRAWINGS // 2
    drawn = np.concatenate([
        views(who, shown.part(part), light, size, walls[part])
        for light, part in ((-1.0, slice(half)), (1.0, slice(half, None)))
    ])  # fmt: skip
    below = (len(picture) - place.y) / size  # how far the pictures go on below the head's centre
    around = (who.skin, who.lips, darken(who.lips, 0.45)) + ((darken(who.hair, 0.1),) if who.beard else ())
    pictures = [_worse(rng, picture, sigma, size, below) for sigma in BLURS for picture in drawn]
    places = canvas_places(shown, size) * len(BLURS)
    copies = lambda track: np.tile(np.asarray(track, np.float32), len(BLURS))
    true_angles = np.stack([copies(shown.yaw), copies(shown.pitch)], axis=1)
    steps = []
    for spread in SPREADS:
        guesses, errors = zip(*(_guess(rng, place, spread) for place in places), strict=True)
        rows = recolored(rng, pixels([cut(picture, guess, HEAD) for picture, guess in zip(pictures, guesses, strict=True)]))
        steps.append(ridge(rows, np.concatenate([np.array(errors, np.float32), true_angles], axis=1)))
    angles = true_angles + rng.normal(0, ANGLE_SPREAD, true_angles.shape)
    cuts = lambda grid, shift: recolored(
        rng, pixels([cut(p, place, grid, shift(*a)) for p, place, a in zip(pictures, guesses, angles, strict=True)])
    )
    some = shown.part(slice(0, 12))
    covered = pixels([cut(c, p, HEAD) for c, p in zip(coverage(who, some, size), canvas_places(some, size), strict=True)])
    covered = np.repeat(covered.mean(0) ** 4, 3)
    opening, brows = MAX_GAP / 2 * copies(shown.mouth.jaw), brow_height(copies(shown.look.brows))
    return PersonModel(
        tuple(steps),
        ridge(with_inside(cuts(MOUTH, mouth_shift), around), opening[:, None]),
        ridge(cuts(BROWS, brows_shift), brows[:, None]),
        _subspace(rows[::2], covered),
        around,
    )


def brow_height(brows: Any) -> Any:
    """How far the brows are above the eyes, relative to the head's height."""
    return (0.25 + 0.05 + 0.10 * brows) / 2


def with_inside(rows: Float32[np.ndarray, "N D"], around: tuple[Any, ...]) -> Float32[np.ndarray, "N E"]:
    """Adds to the pixels of mouths how much each looks like the inside of a mouth, 0 to 255."""
    colors = rows.reshape(-1, 3)
    inner, outer = (
        _distance(colors, np.array(known, np.float32)).reshape(len(rows), -1) for known in (BETWEEN_LIPS, around)
    )
    inside = 255 / (1 + np.exp((inner - outer + MARGIN).clip(-300, 300) / SOFTNESS))
    return np.concatenate([rows, inside], axis=1)


def _distance(colors: Float32[np.ndarray, "N 3"], known: Float32[np.ndarray, "K 3"]) -> Float32[np.ndarray, " N"]:
    """The distance of each colour to the nearest known one."""
    squares = (colors**2).sum(1)[:, None] - 2 * colors @ known.T + (known**2).sum(1)
    return np.sqrt(squares.min(1).clip(0))


def mouth_shift(yaw: float, pitch: float) -> tuple[float, float]:
    """Where the middle of the mouth is, relative to the head's centre, if the head does not roll."""
    x, y, z = MOUTH_POSITION
    return _turned((x, y + MAX_GAP / 2, z), yaw, pitch)


def brows_shift(yaw: float, pitch: float) -> tuple[float, float]:
    """Where the middle between eyes and brows is, relative to the head's centre, if the head does not roll."""
    return _turned(BROWS_POSITION, yaw, pitch)


def _turned(point: tuple[float, float, float], yaw: float, pitch: float) -> tuple[float, float]:
    x, y, z = point
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    return x, y * np.cos(pitch) + z * np.sin(pitch)


def corrected(place: Place, error: np.ndarray) -> Place:
    """The place that a step reads from a guess and its error."""
    dx, dy, log_size, roll = (float(value) for value in error[:4])
    c, s = np.cos(place.roll) * place.size, np.sin(place.roll) * place.size
    return Place(place.x + c * dx - s * dy, place.y + s * dx + c * dy, place.size * np.exp(log_size), place.roll + roll)


def _guess(rng: np.random.Generator, true: Place, spread: tuple[float, float, float]) -> tuple[Place, np.ndarray]:
    """A place near the true one, and its error as `corrected` takes it."""
    error = rng.uniform(-1.7, 1.7, 4) * [spread[0], spread[0], spread[1], spread[2]]
    roll, size = true.roll - error[3], true.size * np.exp(-error[2])
    c, s = np.cos(roll) * size, np.sin(roll) * size
    return Place(true.x - c * error[0] + s * error[1], true.y - s * error[0] - c * error[1], size, roll), error


def _worse(rng: np.random.Generator, picture: np.ndarray, sigma: float, size: float, below: float) -> np.ndarray:
    """The picture blurred, and ending somewhere below the head, as the videos' frames do."""
    end = CANVAS_CENTER[1] + np.clip(below + rng.uniform(-0.4, 0.3), 0.9, 2.4)
    picture = picture[: round(end * size)]
    return cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture


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


def _subspace(rows: Float32[np.ndarray, "N D"], covered: Float32[np.ndarray, " D"]) -> Subspace:
    mean = rows.mean(0)
    centered = rows - mean
    energies, mixtures = np.linalg.eigh(centered @ centered.T)
    directions = (centered.T @ mixtures[:, -COMPONENTS:] / np.sqrt(energies[-COMPONENTS:])).T
    rest = centered - (centered @ directions.T) @ directions
    return Subspace(mean, directions, (rest**2).mean(0) + NOISE**2, covered / covered.sum())
