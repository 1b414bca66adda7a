"""Which factors of a drawn person's identity are seen again in a video, by comparison with drawings that lack them."""

from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from itjax.evaluation.drawn_linear import Linear, recolored, ridge
from itjax.evaluation.drawn_model import HEAD
from itjax.evaluation.drawn_readings import MOUTH, mouth_shift
from itjax.evaluation.drawn_views import (
    Appearance,
    Grid,
    Place,
    canvas_places,
    cuts,
    identity_of,
    random_appearances,
    random_walls,
    reduced,
    views,
    without,
)
from itjax.evaluation.faces import FaceTrack
from itjax.synthetic.face import Identity, darken

# F frames · N drawings · D pixels of a cut-out, three colours each

DRAWINGS = 10  # of each alternative
BLURS = (0.5, 1.3)  # pixels
STYLES = ("short", "long", "tied", "curly", "no")
OTHER = (40, 200, 90)  # a colour that no part of a person has
TOLERANCE = 38.0  # levels (Euclidean, RGB): between the names' colours are 43 and more
LEAST_PIXELS = 3.0  # of the cut-out, that show a part whose colour is to be read
WIDTH_STEP = 0.10  # head widths are told apart from those that differ by that much


class Part(NamedTuple):
    """A part of one colour: how much each pixel of a cut-out shows it (sum 1), and the mean colour expected there."""

    share: Float32[np.ndarray, " P"]
    color: Float32[np.ndarray, "3"]


def factors(
    frames: UInt8[np.ndarray, "F H W 3"], person: dict[str, Any], track: FaceTrack
) -> dict[str, Bool[np.ndarray, " F"]]:
    """Whether each known factor of the person is seen in each frame; where no face was found, none is.

    `skin`, `hair`, `clothes`: the part has its colour. `lips`, `hair_style`, `glasses`, `beard`, `width`: the picture is on
    the person's side of linear discriminants between drawings of it and of the same person with another such factor.
    `hair` is left out where nearly none would be seen.
    """
    pictures, start, scale = reduced(frames, person)
    who = identity_of(person)
    rng = np.random.default_rng(11)
    shown = random_appearances(rng, DRAWINGS)
    walls = random_walls(rng, without(pictures[0], start, who), [start] * DRAWINGS)
    drawn = lambda changed, grid=HEAD: _cuts(rng, changed, shown, start.size, walls, grid)
    own, found = drawn(who), track.found
    seen, mouths = (_seen(pictures, track, scale, grid) for grid in (HEAD, MOUTH))
    results = {}
    recolorings = {
        "skin": (who.skin, who._replace(skin=OTHER)),
        "hair": (who.hair, who._replace(hair=OTHER)),
        "clothes": (who.clothes, who._replace(clothes=OTHER)),
    }
    for name, (color, other) in recolorings.items():
        part = _part(own, drawn(other), np.subtract(OTHER, color))
        if part is not None:
            means = np.einsum("fpc,p->fc", seen.reshape(len(seen), -1, 3), part.share)
            results[name] = np.linalg.norm(means - part.color, axis=1) < TOLERANCE
    own_mouths = drawn(who, MOUTH)
    other_lips = [who._replace(lips=color) for color in (darken(who.skin, 0.1), (120, 60, 160))]
    results["lips"] = _on_own_side(rng, mouths, own_mouths, [drawn(other, MOUTH) for other in other_lips])
    for name, changed in _alternatives(who).items():
        results[name] = _on_own_side(rng, seen, own, [drawn(other) for other in changed])
    return {name: values & found for name, values in results.items()}


def _alternatives(who: Identity) -> dict[str, list[Identity]]:
    """For each factor, the same person without it, or with another value of it."""
    return {
        "hair_style": [who._replace(hair_style=style) for style in STYLES if style != who.hair_style],
        "glasses": [who._replace(glasses=not who.glasses)],
        "beard": [who._replace(beard=not who.beard)],
        "width": [who._replace(width=who.width - WIDTH_STEP), who._replace(width=who.width + WIDTH_STEP)],
    }


def _cuts(
    rng: np.random.Generator, who: Identity, shown: Appearance, size: float, walls: UInt8[np.ndarray, "N H H 3"], grid: Grid
) -> Float32[np.ndarray, "B N D"]:
    """Cut-outs of drawings of a person, as they are and blurred, with small errors of the place."""
    drawn = views(who, shown, 1.0, size, walls.copy())
    rows = []
    for sigma in BLURS:
        pictures = [cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture for picture in drawn]
        near = [p._replace(x=p.x + dx, y=p.y + dy) for p, (dx, dy) in
                zip(canvas_places(shown, size), rng.normal(0, 0.02 * size, (len(drawn), 2)), strict=True)]  # fmt: skip
        rows.append(cuts(pictures, near, grid, _shift(grid, shown.yaw, shown.pitch)))
    return np.stack(rows)


def _seen(pictures: list[np.ndarray], track: FaceTrack, scale: float, grid: Grid) -> Float32[np.ndarray, "F D"]:
    """The cut-out of each frame; zeros where no face was found."""
    rows = np.zeros((len(pictures), 3 * int(np.prod(grid.shape))), np.float32)
    found = np.flatnonzero(track.found)
    if len(found):
        x, y = ((track.center[found] + 0.5) * scale - 0.5).T
        (yaw, pitch, roll), size = track.pose[found].T, track.size[found] * scale
        places = [Place(*each) for each in np.stack([x, y, size, roll], axis=1).tolist()]
        rows[found] = cuts((pictures[number] for number in found), places, grid, _shift(grid, yaw, pitch))
    return rows


def _shift(grid: Grid, yaw: np.ndarray, pitch: np.ndarray) -> np.ndarray | None:
    return mouth_shift(yaw, pitch) if grid is MOUTH else None


def _part(own: Float32[np.ndarray, "B N D"], other: Float32[np.ndarray, "B N D"], change: np.ndarray) -> Part | None:
    """The part that changes with one of the colours; None if it is too small to be read."""
    mean, changed = (rows[1].mean(0).reshape(-1, 3) for rows in (own, other))  # slightly blurred
    share = ((changed - mean) @ change / (change @ change)).clip(0, 1) ** 2
    if share.sum() < LEAST_PIXELS:
        return None
    share /= share.sum()
    return Part(share.astype(np.float32), share @ mean)


def _on_own_side(
    rng: np.random.Generator, seen: Float32[np.ndarray, "F D"], own: Float32[np.ndarray, "B N D"],
    others: list[Float32[np.ndarray, "B N D"]],
) -> Bool[np.ndarray, " F"]:  # fmt: skip
    """Whether each cut-out is more like the person than like any of the others."""
    return np.all([_discriminant(rng, own, other)(seen)[:, 0] > 0 for other in others], axis=0)


def _discriminant(
    rng: np.random.Generator, own: Float32[np.ndarray, "B N D"], other: Float32[np.ndarray, "B N D"]
) -> Linear:
    """Positive on cut-outs of the first kind, negative on those of the second."""
    rows = np.concatenate([own.reshape(-1, own.shape[-1]), other.reshape(-1, own.shape[-1])])
    sides = np.repeat(np.array([[1], [-1]], np.float32), len(rows) // 2, axis=0)
    return ridge(recolored(rng, rows), sides)
