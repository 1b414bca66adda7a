"""Learns to find one drawn person in pictures, by drawing that person many times.

Supervised descent (Xiong and De la Torre, CVPR 2013): a cut-out at a guessed place tells how far the guess is off, three
times, each time by a ridge regression that was trained on smaller errors. Nothing is kept on disk: the drawings of a person
come from a fixed seed.
"""

from collections.abc import Sequence
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
DRAWINGS = 96
PAIRS = 16  # drawings in light from either side
SOFTER = (0.0, 1.25)  # pixels: further blur of the drawings
COVERAGE_BLUR = 0.1  # by which the pixels that show the person vary


class PersonModel(NamedTuple):
    """How one person is found, at one size. `behind`: the first picture without the person."""

    steps: tuple[Linear, ...]  # the errors of x, y, log size, roll; yaw and pitch
    light: Linear  # its side, -1 left, 1 right
    likeness: Subspace
    behind: UInt8[np.ndarray, "H W 3"]


def learn(who: Identity, picture: UInt8[np.ndarray, "H W 3"], place: Place) -> PersonModel:
    """Learns from drawings as large as the head that is at `place` in a picture, in front of what is behind it there."""
    rng, size = np.random.default_rng(7), place.size
    covered = coverage(who, size, place.roll)
    shown, behind = random_appearances(rng, DRAWINGS), without(picture, place, covered)
    walls, few = random_walls(rng, behind, [place] * DRAWINGS), slice(PAIRS)
    drawn = views(who, shown, -1.0, size, walls.copy())
    otherwise = views(who, shown.part(few), 1.0, size, walls[few])
    below = (len(picture) - place.y) / size  # how far the pictures go on below the head's centre
    softness = np.resize(SOFTER, DRAWINGS)
    pictures = [ending(rng, soft, size, below) for soft in softened(drawn, softness)]
    places = canvas_places(shown, size)
    both = (cuts(softened(some, softness[few]), places[few], HEAD) for some in (drawn[few], otherwise))
    from_right = (
        np.subtract(*both).mean(0) * -1
    )  # what light from the right adds, about, to a picture in light from the left
    lit = np.resize([0, 0, 1, 1], (DRAWINGS, 1)).astype(np.float32)
    angles = np.stack([shown.yaw, shown.pitch], axis=1)
    steps = []
    for spread in SPREADS:
        guesses, errors = guessed(rng, places, spread)
        rows = recolored(rng, cuts(pictures, guesses, HEAD))
        steps.append(ridge(rows + lit * from_right, np.concatenate([errors, angles], axis=1).astype(np.float32)))
    sides = np.repeat(np.array([[-1], [1]], np.float32), DRAWINGS, axis=0)
    light = ridge(np.concatenate([rows, rows + from_right]), sides)
    rows += lit * from_right
    center = canvas_places(shown, size)[0]._replace(roll=place.roll)
    often = cuts([cv2.GaussianBlur(covered, (0, 0), COVERAGE_BLUR * size)], [center], HEAD)[0] ** 4
    return PersonModel(tuple(steps), light, subspace(rows, np.repeat(often, 3)), behind)


def softened(drawn: Sequence[np.ndarray] | np.ndarray, softness: Sequence[float] | np.ndarray) -> list[np.ndarray]:
    """Drawings as blurred as the frames that are read, and by `softness` pixels more, a number for each drawing."""
    sigmas = np.hypot(BLUR, softness).tolist()
    return [cv2.GaussianBlur(picture, (0, 0), sigma) for picture, sigma in zip(drawn, sigmas, strict=True)]


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
