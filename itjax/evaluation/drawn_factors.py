"""Which factors of a drawn person's identity are seen again in a video, by comparison with drawings that lack them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from itjax.evaluation.drawn_linear import Linear, recolored, ridge
from itjax.evaluation.drawn_model import HEAD, softened
from itjax.evaluation.drawn_readings import MOUTH, mouth_shift
from itjax.evaluation.drawn_views import (
    Place,
    canvas_places,
    coverage,
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

DRAWINGS = 8  # of each alternative
LIGHT = 1.0  # its side is not known
SOFTER = (0.0, 1.25)  # pixels: further blur of the drawings
PLACE_ERROR = 0.02
STYLES = ("short", "long", "tied", "curly", "no")
ALTERNATIVES = ("hair_style", "glasses", "beard", "width")
CHANGE = 100  # levels
PURPLE = (120, 60, 160)
TOLERANCE = 38.0  # levels (Euclidean, RGB): between the names' colours are 43 and more
LEAST_PIXELS = 3.0  # of the cut-out, that show a part whose colour is to be read
WIDTH_STEP = 0.10  # head widths are told apart from those that differ by that much


class Drawn(NamedTuple):
    """Cut-outs of the same drawings, some of them blurred."""

    heads: Float32[np.ndarray, "N D"]
    mouths: Float32[np.ndarray, "N E"]


def factors(
    frames: UInt8[np.ndarray, "F H W 3"], person: dict[str, Any], track: FaceTrack
) -> dict[str, Bool[np.ndarray, " F"]]:
    """Whether each known factor of the person is seen in each frame; where no face was found, none is.

    `skin`, `hair`, `clothes`: the part has its colour. `lips`, `hair_style`, `glasses`, `beard`, `width`: the picture is on
    the person's side of linear discriminants between drawings of it and of the same person with another such factor.
    `hair` is left out where nearly none would be seen.
    """
    if not track.found.any():
        return {name: np.zeros(len(frames), bool) for name in ("skin", "clothes", "lips", *ALTERNATIVES)}
    pictures, start, scale = reduced(frames, person)
    who, places = identity_of(person), _places(track, scale)
    numbers = np.flatnonzero(track.found)
    heads = cuts((pictures[number] for number in numbers), places, HEAD)
    mouths = cuts((pictures[number] for number in numbers), places, MOUTH, mouth_shift(*track.pose[numbers, :2].T))
    draw = _drawing(track, places, without(pictures[0], start, coverage(who, start.size, start.roll)))
    rng = np.random.default_rng(12)
    own = draw(who)
    results = _colors(who, draw, own.heads, heads)
    results["lips"] = _on_own_side(rng, mouths, own.mouths, _other_lips(who, draw, own.mouths))
    for name, changed in _alternatives(who).items():
        others = [draw(other).heads for other in changed]
        if name == "width":
            others.append(2 * own.heads - others[0])  # as much narrower
        results[name] = _on_own_side(rng, heads, own.heads, others)
    return {name: _in_all_frames(values, track.found) for name, values in results.items()}


def _alternatives(who: Identity) -> dict[str, list[Identity]]:
    """For each factor, the same person without it, or with another value of it."""
    return {
        "hair_style": [who._replace(hair_style=style) for style in STYLES if style != who.hair_style],
        "glasses": [who._replace(glasses=not who.glasses)],
        "beard": [who._replace(beard=not who.beard)],
        "width": [who._replace(width=who.width + WIDTH_STEP)],
    }


def _places(track: FaceTrack, scale: float) -> list[Place]:
    """The places of the frames in which the person is found, in reduced pictures."""
    x, y = ((track.center[track.found] + 0.5) * scale - 0.5).T
    columns = np.stack([x, y, track.size[track.found] * scale, track.pose[track.found, 2]], axis=1)
    return [Place(*each) for each in columns.tolist()]


def _drawing(
    track: FaceTrack, places: list[Place], behind: UInt8[np.ndarray, "h w 3"]
) -> Callable[[Identity], Drawn]:  # fmt: skip
    """A function that draws any person as the person is held in some of the frames, and cuts out heads and mouths."""
    rng, size = np.random.default_rng(11), float(np.median([place.size for place in places]))
    chosen = np.arange(DRAWINGS) * len(places) // DRAWINGS
    yaw, pitch, roll = track.pose[track.found][chosen].T
    shown = random_appearances(rng, DRAWINGS)._replace(yaw=yaw, pitch=pitch, roll=roll)
    walls = random_walls(rng, behind, [places[number]._replace(size=size) for number in chosen])
    errors = rng.normal(0, PLACE_ERROR * size, (len(SOFTER) * DRAWINGS, 2)).tolist()
    near = [
        place._replace(x=place.x + dx, y=place.y + dy)
        for place, (dx, dy) in zip(canvas_places(shown, size) * len(SOFTER), errors, strict=True)
    ]
    shifts = np.tile(mouth_shift(yaw, pitch), (len(SOFTER), 1))

    def draw(who: Identity) -> Drawn:
        drawn = views(who, shown, LIGHT, size, walls.copy())
        pictures = softened([*drawn] * len(SOFTER), np.repeat(SOFTER, DRAWINGS))
        return Drawn(cuts(pictures, near, HEAD), cuts(pictures, near, MOUTH, shifts))

    return draw


def _colors(
    who: Identity, draw: Callable[[Identity], Drawn], own: Float32[np.ndarray, "N D"], heads: Float32[np.ndarray, "F D"]
) -> dict[str, Bool[np.ndarray, " F"]]:
    """Whether skin, hair and clothes have their colours. Parts that are too small to be read are left out."""
    # red is changed in the skin, green in the hair, blue in the clothes: one drawing shows where all of them are
    (red, *skin), (first, green, last), (*clothes, blue) = who.skin, who.hair, who.clothes
    changes = np.array([_away(value) for value in (red, green, blue)])
    red, green, blue = (np.array([red, green, blue]) + changes).tolist()
    other = who._replace(skin=(red, *skin), hair=(first, green, last), clothes=(*clothes, blue))
    changed = draw(other).heads
    mean = own.mean(0).reshape(-1, 3)
    shares = ((changed.mean(0).reshape(-1, 3) - mean) / changes).clip(0, 1) ** 2
    results = {}
    for name, share in zip(("skin", "hair", "clothes"), shares.T, strict=True):
        if share.sum() > LEAST_PIXELS:
            weights = share / share.sum()
            means = np.einsum("fpc,p->fc", heads.reshape(len(heads), -1, 3), weights)
            results[name] = np.linalg.norm(means - weights @ mean, axis=1) < TOLERANCE
    return results


def _away(value: int) -> int:
    """By how much a level is changed to see where it is."""
    return CHANGE if value < 128 else -CHANGE


def _other_lips(
    who: Identity, draw: Callable[[Identity], Drawn], own: Float32[np.ndarray, "N D"]
) -> list[Float32[np.ndarray, "N D"]]:
    """Mouths with lips that look like skin, and purple ones."""
    changes = np.array([_away(value) for value in who.lips])
    changed = draw(who._replace(lips=tuple((who.lips + changes).tolist()))).mouths
    shares = (changed - own).reshape(len(own), -1, 3) / changes
    return [
        (own.reshape(shares.shape) + shares * np.subtract(color, who.lips)).reshape(own.shape).astype(np.float32)
        for color in (darken(who.skin, 0.1), PURPLE)
    ]


def _in_all_frames(values: Bool[np.ndarray, " n"], found: Bool[np.ndarray, " F"]) -> Bool[np.ndarray, " F"]:
    result = np.zeros(len(found), bool)
    result[found] = values
    return result


def _on_own_side(
    rng: np.random.Generator, seen: Float32[np.ndarray, "F D"], own: Float32[np.ndarray, "N D"],
    others: list[Float32[np.ndarray, "N D"]],
) -> Bool[np.ndarray, " F"]:  # fmt: skip
    """Whether each cut-out is more like the person than like any of the others."""
    return np.all([_discriminant(rng, own, other)(seen)[:, 0] > 0 for other in others], axis=0)


def _discriminant(rng: np.random.Generator, own: Float32[np.ndarray, "N D"], other: Float32[np.ndarray, "N D"]) -> Linear:
    """Positive on cut-outs of the first kind, negative on those of the second."""
    rows = np.concatenate([own, other])
    sides = np.repeat(np.array([[1], [-1]], np.float32), len(rows) // 2, axis=0)
    return ridge(recolored(rng, rows), sides)
