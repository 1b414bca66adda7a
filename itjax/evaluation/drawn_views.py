"""Views of a drawn person's head: where it is cut out of a picture, and how it looks there in any pose."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, get_args, get_type_hints

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from itjax.synthetic import mouth as mouths
from itjax.synthetic.face import Identity, Look, Pose, person_layers
from itjax.synthetic.face.pen import Layer, paint
from itjax.synthetic.mouth import Mouth
from itjax.synthetic.scene import SUPERSAMPLING

# H W pixels of a picture · h w pixels of a cut-out · lengths without a unit are in halves of the head's height

BLUR = 0.8  # pixels: small pictures are read blurred, as else they depend on where between the pixels a head is
LARGEST = 20.0  # pixels in half a head's height: larger heads are read from reduced pictures
CANVAS = 3.7  # width of the pictures that are drawn here
CANVAS_CENTER = (1.85, 1.7)  # of the head in them
PLACES = {"head_box": 4, "left_eye": 2, "right_eye": 2}  # what is read of a truth's `seen`: numbers in a frame


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


def cut(picture: np.ndarray, place: Place, grid: Grid, shift: Sequence[float] = (0.0, 0.0)) -> np.ndarray:
    """The pixels of the grid, upright, whatever the head's position, size and roll. `shift` moves the grid."""
    rows, columns = grid.shape
    step = place.size / grid.density
    c, s = step * np.cos(place.roll), step * np.sin(place.roll)
    left, top = (place.size * value for value in (grid.left + shift[0], grid.top + shift[1]))
    x = place.x + np.cos(place.roll) * left - np.sin(place.roll) * top + 0.5 * (c - s)
    y = place.y + np.sin(place.roll) * left + np.cos(place.roll) * top + 0.5 * (s + c)
    matrix = np.array([[c, -s, x], [s, c, y]])
    return cv2.warpAffine(
        picture, matrix, (columns, rows), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )


def cuts(
    pictures: Iterable[np.ndarray], places: Sequence[Place], grid: Grid, shifts: Float[np.ndarray, "N 2"] | None = None
) -> Float32[np.ndarray, "N D"]:
    """Cut-outs, one of each picture, as rows of numbers."""
    moved = np.zeros((len(places), 2)) if shifts is None else shifts
    rows = [cut(picture, place, grid, shift) for picture, place, shift in zip(pictures, places, moved.tolist(), strict=True)]
    return np.stack(rows).reshape(len(rows), -1).astype(np.float32)


class Appearance(NamedTuple):
    """What varies in the pictures of one person: the pose's angles, the mouth, the look; arrays of one value per drawing."""

    yaw: Any
    pitch: Any
    roll: Any
    mouth: Mouth
    look: Look

    def part(self, part: slice) -> "Appearance":
        """Some of the drawings."""
        cut = lambda tracks: type(tracks)(*(track[part] for track in tracks))
        return Appearance(self.yaw[part], self.pitch[part], self.roll[part], cut(self.mouth), cut(self.look))


def random_appearances(rng: np.random.Generator, count: int) -> Appearance:
    """Appearances as in the clips, but independent of each other, and evenly spread over all that is possible."""
    spread = lambda low, high: low + (high - low) * (rng.permutation(count) + rng.random(count)) / count
    one, other = np.array(list(mouths.SHAPES.values()))[rng.integers(len(mouths.SHAPES), size=(2, count))]
    mouth = Mouth(*(one + rng.random((count, 1)) * (other - one)).T)
    # half of them open as in speech, half as far as any, with any other shape, or not at all
    mouth = mouth._replace(jaw=np.where(np.arange(count) % 2, mouth.jaw, spread(-0.8, 1.0).clip(0)))
    eyes_open = rng.choice([1.0, 1.0, 1.0, 0.5, 0.05], count)
    look = Look(eyes_open, rng.normal(0, 0.5, count), rng.normal(0, 0.3, count), spread(-1, 1), spread(-0.4, 1.0))
    return Appearance(spread(-0.5, 0.5), spread(-0.36, 0.36), rng.normal(0, 0.12, count), mouth, look)


def views(
    who: Identity, shown: Appearance, light: float, size: float, walls: UInt8[np.ndarray, "N H H 3"]
) -> UInt8[np.ndarray, "N h h 3"]:
    """Draws the person with heads of half height `size` in pixels, at `canvas_places`, over `walls`, which it overwrites."""
    return _painted(walls, _layers(who, shown, light, size))


def _layers(who: Identity, shown: Appearance, light: float, size: float) -> list[Layer]:
    count, none = len(shown.roll), np.zeros(len(shown.roll))
    pose = Pose(shown.yaw, shown.pitch, shown.roll, none, none, np.full(count, size))
    origin = np.tile(np.array(CANVAS_CENTER) * size * SUPERSAMPLING - 0.5, (count, 1))
    return person_layers(who, pose, shown.mouth, shown.look, light, np.full(count, float(SUPERSAMPLING)), origin, False)[0]


def _painted(walls: UInt8[np.ndarray, "N H H 3"], layers: list[Layer]) -> UInt8[np.ndarray, "N h h 3"]:
    side = walls.shape[1] // SUPERSAMPLING
    pictures = np.empty((len(walls), side, side, 3), np.uint8)
    for number, (wall, picture) in enumerate(zip(walls, pictures, strict=True)):
        paint(wall, layers, number)
        cv2.resize(wall, (side, side), dst=picture, interpolation=cv2.INTER_AREA)
    return pictures


def canvas_places(shown: Appearance, size: float) -> list[Place]:
    """Where the heads are in the pictures that `views` returns."""
    x, y = (value * size - 0.5 for value in CANVAS_CENTER)
    return [Place(x, y, size, float(roll)) for roll in shown.roll]


def coverage(who: Identity, size: float, roll: float) -> Float32[np.ndarray, "h h"]:
    """How much of each pixel of a view the person covers who looks straight ahead, 0 to 1."""
    one, side = np.zeros(1), round(CANVAS * size) * SUPERSAMPLING
    layers = _layers(who, Appearance(one, one, one + roll, Mouth(*(one,) * 5), Look(*(one,) * 5)), 1.0, size)
    black, white = (_painted(np.full((1, side, side, 3), level, np.uint8), layers)[0] for level in (0, 255))
    return 1 - (white.astype(np.float32) - black).mean(-1) / 255


def without(
    picture: UInt8[np.ndarray, "H W 3"], place: Place, covered: Float32[np.ndarray, "h h"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The picture without the person, about: what is behind is continued from around it. `covered`: its coverage."""
    x, y = (value * place.size - 0.5 for value in CANVAS_CENTER)
    moved = cv2.warpAffine(covered, np.array([[1, 0, place.x - x], [0, 1, place.y - y]]), picture.shape[1::-1])
    mask = cv2.dilate((moved > 0.05).astype(np.uint8), np.ones((5, 5), np.uint8))
    return cv2.inpaint(picture, mask, 3, cv2.INPAINT_TELEA)


def random_walls(
    rng: np.random.Generator, behind: UInt8[np.ndarray, "H W 3"], places: list[Place]
) -> UInt8[np.ndarray, "N h h 3"]:
    """Walls for `views`: what is behind heads at the places, moved at random. The heads are of one size."""
    size = places[0].size
    side = round(CANVAS * size)
    walls = np.empty((len(places), side * SUPERSAMPLING, side * SUPERSAMPLING, 3), np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for wall, place, (dx, dy) in zip(walls, places, rng.normal(0, 0.25, (len(places), 2)).tolist(), strict=True):
        x, y = place.x + (dx - CANVAS_CENTER[0]) * size, place.y + (dy - CANVAS_CENTER[1]) * size
        matrix = np.array([[1, 0, x], [0, 1, y]])
        small = cv2.warpAffine(behind, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        cv2.resize(small, wall.shape[1::-1], dst=wall, interpolation=cv2.INTER_NEAREST)
    return walls


def identity_of(person: dict[str, Any]) -> Identity:
    """The identity as it was drawn; JSON has made lists of its colours.

    Raises:
        TypeError: If a field is missing or unknown, or its value is of another kind.
    """
    known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in person["identity"].items()}
    who = Identity(**known)
    for name, kind in get_type_hints(Identity).items():
        value = known[name]
        found = tuple(map(type, value)) if isinstance(value, tuple) else type(value)
        if found != (get_args(kind) or kind) and (kind, found) != (float, int):
            raise TypeError(f"identity.{name} is {str(value)[:60]!r}")
    return who


def reduced(
    frames: UInt8[np.ndarray, "F H W 3"], person: dict[str, Any]
) -> tuple[list[UInt8[np.ndarray, "h w 3"]], Place, float]:
    """The frames made so small that the person's head is no larger than needed, its place in the first, and the scale."""
    seen = person["seen"]
    left, top, right, bottom = seen["head_box"][0]
    (ax, ay), (bx, by) = seen["left_eye"][0], seen["right_eye"][0]
    size, roll = (bottom - top) / 2, float(np.arctan2(by - ay, bx - ax))
    scale = min(1.0, LARGEST / size)
    x, y = (((a + b) / 2 + 0.5) * scale - 0.5 for a, b in ((left, right), (top, bottom)))
    place = Place(x, y, size * scale, roll)
    height, width = (round(side * scale) for side in frames.shape[1:3])
    pictures = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames]
    return [cv2.GaussianBlur(picture, (0, 0), BLUR) for picture in pictures], place, scale
