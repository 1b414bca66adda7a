"""Reads a drawn person's pose, mouth and brows, by drawing the person as it is held in the video.

Once it is known where the head is, about, everything that matters less is held as it is in the video: the poses, the
light, what is behind. So few drawings tell how pixels change with an opening mouth.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8

from itjax.evaluation import drawn_model
from itjax.evaluation.drawn_linear import recolored, ridge
from itjax.evaluation.drawn_views import Grid, Place, canvas_places, cuts, random_appearances, random_walls, views
from itjax.synthetic.face import BETWEEN_LIPS, MAX_GAP, MOUTH_POSITION, Identity, darken

# F frames · N drawings · D pixels of a cut-out, three colours each

FACE = Grid(-1.15, -1.15, 2.3, 2.45, 10.0)
MOUTH = Grid(-0.55, -0.42, 1.1, 0.95, 16.0)
BROWS = Grid(-0.7, -0.32, 1.4, 0.6, 16.0)
BROWS_POSITION = (0.0, -0.36, 0.80)
DRAWINGS = 80
CORRECTIONS = 2  # of the places
SPREAD = (0.03, 0.02, 0.02)  # of x and y, log size, roll
ANGLE_SPREAD = 0.05  # of yaw and pitch
LEFT_SPREAD = (0.01, 0.007, 0.007)  # what the corrections leave of it, from which mouth and brows are read
LEFT_ANGLE_SPREAD = 0.015
SOFTER = (0.0, 0.3, 0.6, 0.9)  # pixels: further blur of the drawings, each of which is seen from several places
MARGIN, SOFTNESS = 15.0, 10.0  # levels, as in mouths.py


class Readings(NamedTuple):
    """What is read of each frame."""

    places: list[Place]
    angles: Float32[np.ndarray, "F 2"]  # yaw and pitch
    opening: Float32[np.ndarray, " F"]
    brows: Float32[np.ndarray, " F"]


def read(
    frames: list[UInt8[np.ndarray, "h w 3"]], who: Identity, behind: UInt8[np.ndarray, "h w 3"], places: list[Place],
    angles: Float32[np.ndarray, "F 2"], light: float,
) -> Readings:  # fmt: skip
    """Reads frames in which the person's place, yaw and pitch are known about."""
    rng, size = np.random.default_rng(3), float(np.median([place.size for place in places]))
    chosen = rng.permutation(np.arange(DRAWINGS) * len(frames) // DRAWINGS)
    held = angles[chosen] + rng.normal(0, ANGLE_SPREAD, (DRAWINGS, 2))
    rolls = np.array([places[number].roll for number in chosen]) + rng.normal(0, SPREAD[2], DRAWINGS)
    shown = random_appearances(rng, DRAWINGS)._replace(yaw=held[:, 0], pitch=held[:, 1], roll=rolls)
    drawn = views(
        who, shown, light, size, random_walls(rng, behind, [places[number]._replace(size=size) for number in chosen])
    )
    pictures = drawn_model.softened([*drawn] * len(SOFTER), np.repeat(SOFTER, DRAWINGS))
    copies = lambda values: np.tile(np.asarray(values, np.float32).reshape(DRAWINGS, -1), (len(SOFTER), 1))
    seen_at = canvas_places(shown, size) * len(SOFTER)
    near, errors = drawn_model.guessed(rng, seen_at, SPREAD)
    true = copies(held)
    rows = recolored(rng, cuts(pictures, near, FACE))
    pose = ridge(rows, np.concatenate([errors, true], axis=1).astype(np.float32))
    for _ in range(CORRECTIONS):
        read = pose(cuts(frames, places, FACE))
        places = [drawn_model.corrected(place, error) for place, error in zip(places, read, strict=True)]
    near, _ = drawn_model.guessed(rng, seen_at, LEFT_SPREAD)
    turned = true + rng.normal(0, LEFT_ANGLE_SPREAD, true.shape)
    around = (who.skin, who.lips, darken(who.lips, 0.45)) + ((darken(who.hair, 0.1),) if who.beard else ())
    mouths = with_inside(recolored(rng, cuts(pictures, near, MOUTH, mouth_shift(*turned.T))), around)
    opening = ridge(mouths, copies(MAX_GAP / 2 * shown.mouth.jaw))
    brows = ridge(recolored(rng, cuts(pictures, near, BROWS, brows_shift(*turned.T))), copies(brow_height(shown.look.brows)))
    angles = read[:, 4:]
    return Readings(
        places,
        angles,
        opening(with_inside(cuts(frames, places, MOUTH, mouth_shift(*angles.T)), around))[:, 0],
        brows(cuts(frames, places, BROWS, brows_shift(*angles.T)))[:, 0],
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


def mouth_shift(yaw: Float[np.ndarray, " N"], pitch: Float[np.ndarray, " N"]) -> Float[np.ndarray, "N 2"]:
    """Where the middle of the mouth is, relative to the head's centre, if the head does not roll."""
    x, y, z = MOUTH_POSITION
    return _turned((x, y + MAX_GAP / 2, z), yaw, pitch)


def brows_shift(yaw: Float[np.ndarray, " N"], pitch: Float[np.ndarray, " N"]) -> Float[np.ndarray, "N 2"]:
    """Where the middle between eyes and brows is, relative to the head's centre, if the head does not roll."""
    return _turned(BROWS_POSITION, yaw, pitch)


def _turned(
    point: tuple[float, float, float], yaw: Float[np.ndarray, " N"], pitch: Float[np.ndarray, " N"]
) -> Float[np.ndarray, "N 2"]:  # fmt: skip
    x, y, z = point
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    return np.stack([x, y * np.cos(pitch) + z * np.sin(pitch)], axis=1)
