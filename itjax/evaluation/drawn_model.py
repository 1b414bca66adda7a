"""Learns to find one drawn person in pictures, by drawing that person many times.

Supervised descent (Xiong and De la Torre, CVPR 2013): a cut-out at a guessed place tells how far the guess is off, three
times, each time by a ridge regression that was trained on smaller errors. Nothing is kept on disk: the drawings of a person
come from a fixed seed.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from itjax.evaluation.drawn_linear import Linear, Subspace, recolored, ridge, subspace
from itjax.evaluation.drawn_views import (
    BLUR,
    CANVAS_CENTER,
    Grid,
    Place,
    canvas_places,
    coverage,
    cuts,
    random_appearances,
    random_walls,
    views,
    without,
)
from itjax.synthetic.face import Identity

# N drawings

HEAD = Grid(-1.4, -1.25, 2.8, 2.8, 10.0)
SPREADS = ((0.25, 0.15, 0.20), (0.08, 0.05, 0.07), (0.03, 0.02, 0.03))  # of x and y, log size, roll, in each step
DRAWINGS = 100
SOFTER = (0.0, 1.25)  # pixels: further blur of the drawings
COVERAGE_BLUR = 0.1  # by which the pixels that show the person vary


class PersonModel(NamedTuple):
    """How one person is found, at one size. `behind`: the first picture without the person."""

    steps: tuple[Linear, ...]  # the errors of x, y, log size, roll; yaw, pitch, and the light's side
    likeness: Subspace
    behind: UInt8[np.ndarray, "H W 3"]


def learn(who: Identity, picture: UInt8[np.ndarray, "H W 3"], place: Place) -> PersonModel:
    """Learns from drawings as large as the head that is at `place` in a picture, in front of what is behind it there."""
    rng, size = np.random.default_rng(7), place.size
    covered = coverage(who, size, place.roll)
    shown, behind = random_appearances(rng, DRAWINGS), without(picture, place, covered)
    walls = random_walls(rng, behind, [place] * DRAWINGS)
    half = DRAWINGS // 2
    lights = np.repeat([-1.0, 1.0], half)
    drawn = np.concatenate([
        views(who, shown.part(part), light, size, walls[part])
        for light, part in ((-1.0, slice(half)), (1.0, slice(half, None)))
    ])  # fmt: skip
    below = (len(picture) - place.y) / size  # how far the pictures go on below the head's centre
    pictures = [ending(rng, soft, size, below) for sigma in SOFTER for soft in softened(drawn, sigma)]
    places = canvas_places(shown, size) * len(SOFTER)
    known = np.tile(np.stack([shown.yaw, shown.pitch, lights], axis=1), (len(SOFTER), 1))
    steps = []
    for spread in SPREADS:
        guesses, errors = guessed(rng, places, spread)
        rows = recolored(rng, cuts(pictures, guesses, HEAD))
        steps.append(ridge(rows, np.concatenate([errors, known], axis=1).astype(np.float32)))
    center = canvas_places(shown, size)[0]._replace(roll=place.roll)
    often = cuts([cv2.GaussianBlur(covered, (0, 0), COVERAGE_BLUR * size)], [center], HEAD)[0] ** 4
    return PersonModel(tuple(steps), subspace(rows, np.repeat(often, 3)), behind)


def softened(drawn: UInt8[np.ndarray, "N h h 3"], sigma: float) -> list[UInt8[np.ndarray, "h h 3"]]:
    """The drawings as blurred as the frames that are read, and by `sigma` pixels more."""
    return [cv2.GaussianBlur(picture, (0, 0), float(np.hypot(BLUR, sigma))) for picture in drawn]


def ending(rng: np.random.Generator, picture: np.ndarray, size: float, below: float) -> np.ndarray:
    """The picture ending somewhere below the head, as the videos' frames do."""
    return picture[: round((CANVAS_CENTER[1] + np.clip(below + rng.uniform(-0.4, 0.3), 0.9, 2.4)) * size)]


def corrected(place: Place, error: np.ndarray) -> Place:
    """The place that a step reads from a guess and its error."""
    dx, dy, log_size, roll = (float(value) for value in error[:4])
    c, s = np.cos(place.roll) * place.size, np.sin(place.roll) * place.size
    return Place(place.x + c * dx - s * dy, place.y + s * dx + c * dy, place.size * np.exp(log_size), place.roll + roll)


def guessed(
    rng: np.random.Generator, places: list[Place], spread: tuple[float, float, float]
) -> tuple[list[Place], Float[np.ndarray, "N 4"]]:
    """A place near each of the places, and its error as `corrected` takes it."""
    errors = rng.uniform(-1.7, 1.7, (len(places), 4)) * [spread[0], spread[0], spread[1], spread[2]]
    guesses = []
    for true, (dx, dy, log_size, turn) in zip(places, errors.tolist(), strict=True):
        roll, size = true.roll - turn, true.size * np.exp(-log_size)
        c, s = np.cos(roll) * size, np.sin(roll) * size
        guesses.append(Place(true.x - c * dx + s * dy, true.y - s * dx - c * dy, size, roll))
    return guesses, errors
