"""Views of a drawn person's head: where it is cut out of a picture, and how it looks there in any pose."""

from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from itjax.synthetic import mouth as mouths
from itjax.synthetic.face import Identity, Look, Pose, draw
from itjax.synthetic.mouth import Mouth
from itjax.synthetic.scene import SUPERSAMPLING

# H W pixels of a picture · h w pixels of a cut-out · lengths without a unit are in halves of the head's height

CANVAS = 4.4  # width of the pictures that are drawn here
CANVAS_CENTER = (2.2, 2.0)  # of the head in them


class Place(NamedTuple):
    """Where a head is in a picture: its centre and half its height in pixels, its roll in radians."""

    x: float
    y: float
    size: float
    roll: float


class Grid(NamedTuple):
    """A rectangle that turns with the head: its middle relative to the head's centre, its extent, pixels per unit length."""

    left: float
    top: float
    width: float
    height: float
    density: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return round(self.height * self.density), round(self.width * self.density)


def cut(picture: np.ndarray, place: Place, grid: Grid, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """The pixels of the grid, upright, whatever the head's position, size and roll. `shift` moves the grid."""
    rows, columns = grid.shape
    step = place.size / grid.density
    c, s = step * np.cos(place.roll), step * np.sin(place.roll)
    left, top = (place.size * value for value in (grid.left + shift[0], grid.top + shift[1]))
    x = place.x + np.cos(place.roll) * left - np.sin(place.roll) * top + 0.5 * (c - s) - 0.5
    y = place.y + np.sin(place.roll) * left + np.cos(place.roll) * top + 0.5 * (s + c) - 0.5
    matrix = np.array([[c, -s, x], [s, c, y]])
    return cv2.warpAffine(
        picture, matrix, (columns, rows), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )


class Appearance(NamedTuple):
    """What varies in the pictures of one person: the pose's angles, the mouth, the look."""

    yaw: float
    pitch: float
    roll: float
    mouth: Mouth
    look: Look


def random_appearances(rng: np.random.Generator, count: int) -> list[Appearance]:
    """Appearances as in the clips, but independent of each other, and evenly spread over all that is possible."""
    spread = lambda low, high: low + (high - low) * (rng.permutation(count) + rng.random(count)) / count
    symbols = rng.choice(list(mouths.SHAPES), (count, 2))
    jaws = spread(-0.15, 1.0).clip(0)  # closed in an eighth of them
    eyes_open = rng.choice([1.0, 1.0, 1.0, 0.5, 0.05], count)
    looks = zip(eyes_open, rng.normal(0, 0.5, count), rng.normal(0, 0.3, count), spread(-1, 1), spread(-0.5, 0.9), strict=True)
    angles = zip(spread(-0.5, 0.5), spread(-0.36, 0.36), rng.normal(0, 0.12, count), strict=True)
    return [
        Appearance(*turned, _mouth_between(*pair, share, jaw), Look(*look))
        for turned, pair, share, jaw, look in zip(angles, symbols, rng.random(count), jaws, looks, strict=True)
    ]


def _mouth_between(one: str, other: str, share: float, jaw: float) -> Mouth:
    mixed = [a + share * (b - a) for a, b in zip(mouths.SHAPES[one], mouths.SHAPES[other], strict=True)]
    return Mouth(jaw, *mixed[1:])


def view(who: Identity, shown: Appearance, size: float, wall: UInt8[np.ndarray, "H H 3"]) -> UInt8[np.ndarray, "h h 3"]:
    """Draws the person in front of `wall` with a head of half height `size` in pixels, at `canvas_place`."""
    picture = wall.copy()
    pose = Pose(shown.yaw, shown.pitch, shown.roll, 0.0, 0.0, size)
    origin = tuple(size * SUPERSAMPLING * value for value in CANVAS_CENTER)
    draw(picture, who, pose, shown.mouth, shown.look, SUPERSAMPLING, origin)
    side = len(wall) // SUPERSAMPLING
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)


def canvas_place(shown: Appearance, size: float) -> Place:
    """Where the head is in the pictures that `view` returns."""
    return Place(CANVAS_CENTER[0] * size, CANVAS_CENTER[1] * size, size, shown.roll)


def random_wall(rng: np.random.Generator, size: float, colors: UInt8[np.ndarray, "N 3"]) -> UInt8[np.ndarray, "H H 3"]:
    """A wall for `view` in one of the colours, with a box in another."""
    side = round(CANVAS * size) * SUPERSAMPLING
    wall = np.full((side, side, 3), colors[rng.integers(len(colors))], np.uint8)
    left, top = rng.integers(0, side, 2)
    wall[top : top + side // 3, left : left + side // 3] = colors[rng.integers(len(colors))]
    return wall


def head_place(seen: dict[str, Any], frame: int = 0) -> Place:
    """The true place of a head, from the ground truth's `seen`."""
    left, top, right, bottom = seen["head_box"][frame]
    (ax, ay), (bx, by) = seen["left_eye"][frame], seen["right_eye"][frame]
    return Place((left + right) / 2, (top + bottom) / 2, (bottom - top) / 2, float(np.arctan2(by - ay, bx - ax)))


def pixels(cuts: list[np.ndarray]) -> Float32[np.ndarray, "N D"]:
    """Cut-outs as rows of numbers."""
    return np.stack(cuts).reshape(len(cuts), -1).astype(np.float32)
