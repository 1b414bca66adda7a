"""Polygons in a head's own coordinates, projected to the pictures of all frames at once."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int32, Integer, UInt8

from itjax.synthetic.face.identity import Color, Pose, mix

# F frames · N points · H W pixels · x to the right, y down, z towards the viewer, from the head's centre, in units of
# half its height

SHIFT = 4  # fractional bits of OpenCV coordinates
SPREAD = 0.65  # pixels by which OpenCV draws a smooth edge too far outside
AROUND = np.linspace(0, 2 * np.pi, 33)[:-1]


class Layer(NamedTuple):
    """A polygon in all frames: its contours in picture pixels (fixed point), colour, and in which frames it is seen."""

    contours: tuple[Int32[np.ndarray, "F N 2"], ...]
    color: Color
    shown: Bool[np.ndarray, " F"] | None = None


def paint(picture: UInt8[np.ndarray, "H W 3"], layers: Sequence[Layer], frame: int) -> None:
    """Paints the layers of a frame over the picture, the first at the bottom."""
    for contours, color, shown in layers:
        if shown is None or shown[frame]:
            cv2.fillPoly(picture, [points[frame] for points in contours], color, cv2.LINE_AA, SHIFT)


class Polygon(NamedTuple):
    """A polygon that a pen has added: which of the pen's contours it has, its colour, and in which frames it is seen."""

    pen: "Pen"
    contours: slice
    color: Color
    shown: Bool[np.ndarray, " F"] | None


def layers(polygons: Sequence[Polygon]) -> list[Layer]:
    """The polygons of all pens in the picture, in the same order."""
    drawn = {pen: pen.contours() for pen in {each.pen for each in polygons}}
    return [Layer(tuple(drawn[pen][contours]), color, shown) for pen, contours, color, shown in polygons]


class Pen:
    """Adds polygons to `polygons`, of which `layers` makes what is painted.

    `scale` (pixels per world unit) and `origin` are the camera's, one per frame. `fine`: gradients in all their steps, which
    small pictures do not show.
    """

    def __init__(
        self, polygons: list[Polygon], pose: Pose, scale: Float[np.ndarray, " F"], origin: Float[np.ndarray, "F 2"],
        fine: bool,
    ):  # fmt: skip
        self._polygons, self._fine = polygons, fine
        self._turn = _rotation(pose)[..., :2, :] * (pose.size * scale)[:, None, None]
        self._middle = np.stack([pose.x, pose.y], axis=-1) * scale[:, None] + origin
        self._contours: list[Float[np.ndarray, "*F N 3"]] = []
        self._insets: list[float] = []  # by how many pixels the sides of each contour are moved inwards

    def at(self, points: Float[np.ndarray, "*F N 3"]) -> Float[np.ndarray, "F N 2"]:
        """Projects points, the same in all frames or of each frame, to picture pixels."""
        return points @ self._turn.transpose(0, 2, 1) + self._middle[:, None]

    def fill(
        self, points: Float[np.ndarray, "*F N 3"], color: Color, shown: Any = None, hole: Any = None, bold: bool = False
    ) -> None:  # fmt: skip
        """Fills the polygon of the points, except for the polygon `hole`. `bold`: a third of a final pixel larger."""
        first = len(self._contours)
        for contour in (points,) if hole is None else (points, hole):
            self._contours.append(contour)
            self._insets.append(0.0 if bold else SPREAD)
        self._polygons.append(Polygon(self, slice(first, len(self._contours)), color, shown))

    def contours(self) -> list[Int32[np.ndarray, "F N 2"]]:
        """All contours in picture pixels (fixed point). One by one it would take twice as long as together."""
        order = sorted(range(len(self._contours)), key=lambda number: self._contours[number].ndim)
        kinds = (np.concatenate(list(kind), axis=-2) for _, kind in groupby((self._contours[n] for n in order), np.ndim))
        points = np.concatenate([self.at(kind) for kind in kinds], axis=1).swapaxes(1, 2).copy()
        starts = np.cumsum([0, *(self._contours[number].shape[-2] for number in order)])
        inset = _inset(points, np.array(self._insets)[order], starts)
        fixed = np.rint(inset * 2**SHIFT).swapaxes(1, 2).astype(np.int32, order="C")
        found = dict(zip(order, np.split(fixed, starts[1:-1], axis=1), strict=True))
        return [found[number] for number in range(len(order))]

    def steps(self, count: int) -> int:
        """The number of steps of a gradient that has `count` of them in large pictures."""
        return count if self._fine else (count + 1) // 2

    def blend(self, points: Float[np.ndarray, "*F N 3"], outer: Color, inner: Color, steps: int, size: float = 0.2) -> None:
        """A soft gradient: polygons that shrink to `size` around their middle, from the colour `outer` to `inner`."""
        steps = self.steps(steps)
        middle = points.mean(axis=-2, keepdims=True)
        for step in range(steps):
            share = (step + 1) / steps
            self.fill(middle + (points - middle) * (1 - (1 - size) * step / steps), mix(outer, inner, share))


def _inset(
    points: Float[np.ndarray, "F 2 N"], by: Float[np.ndarray, " P"], starts: Integer[np.ndarray, " P+1"]
) -> Float[np.ndarray, "F 2 N"]:
    """Moves the sides of polygons, which lie one after another from `starts`, inwards by so many pixels each."""
    along = np.empty_like(points)  # from the corner before each corner to the one after it
    along[..., 1:-1] = points[..., 2:] - points[..., :-2]
    first, last = starts[:-1], starts[1:] - 1
    along[..., first] = points[..., first + 1] - points[..., last]
    along[..., last] = points[..., first] - points[..., last - 1]
    x, y = along[:, 0], along[:, 1]
    # what is added decides for a polygon without area, such as a shut eye, whose sign would be that of rounding errors
    area = np.add.reduceat(points[:, 0] * y, first, axis=1) + 1e-6
    move = np.repeat(np.copysign(by, area), np.diff(starts), axis=1) / (np.sqrt(x * x + y * y) + 1e-6)
    along[:, 0], along[:, 1] = points[:, 0] - move * y, points[:, 1] + move * x
    return along


def _rotation(pose: Pose) -> Float[np.ndarray, "F 3 3"]:
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (pose.yaw, pose.pitch, pose.roll))
    none, one = np.zeros_like(cy), np.ones_like(cy)
    matrix = lambda *rows: np.moveaxis(np.array(rows), -1, 0)
    yaw = matrix([cy, none, sy], [none, one, none], [-sy, none, cy])
    pitch = matrix([one, none, none], [none, cp, sp], [none, -sp, cp])
    roll = matrix([cr, -sr, none], [sr, cr, none], [none, none, one])
    return roll @ pitch @ yaw


def xyz(x: Any, y: Any, z: Any) -> Float[np.ndarray, "*F N 3"]:
    """Points from coordinates of any shapes that broadcast."""
    points = np.empty((*np.broadcast(x, y, z).shape, 3))  # several times as fast as np.stack
    points[..., 0], points[..., 1], points[..., 2] = x, y, z
    return points


def column(track: Any) -> Float[np.ndarray, "*F 1"]:
    """A track with an axis for the points of each frame."""
    return np.asarray(track, np.float64)[..., None]


def oval(x: Any, y: Any, z: Any, width: Any, height: Any, part: slice = slice(None)) -> Float[np.ndarray, "*F N 3"]:
    """An ellipse around a point, or a part of it, starting at its right and passing its lower side first."""
    angles = AROUND[part]
    return xyz(x + width * np.cos(angles), y + height * np.sin(angles), z)


def between(x: Any, top: Any, bottom: Any, z: Any) -> Float[np.ndarray, "*F N 3"]:
    """The area between two lines over the same `x`."""
    forward, back = xyz(x, top, z), xyz(x, bottom, z)[..., ::-1, :]
    return np.concatenate(np.broadcast_arrays(forward, back), axis=-2)


def smooth(places: Sequence[Sequence[Any]], z: Any, closed: bool = True, steps: int = 4) -> Float[np.ndarray, "*F N 3"]:
    """A smooth line (Catmull-Rom) through the places (x, y); each number may be a track."""
    corners = np.empty((*np.broadcast_shapes(*(np.shape(value) for place in places for value in place)), len(places), 2))
    for number, (x, y) in enumerate(places):
        corners[..., number, 0], corners[..., number, 1] = x, y
    if closed:
        numbers = np.arange(len(places))
        before, after, later = (corners[..., (numbers + by) % len(places), :] for by in (-1, 1, 2))
        start = corners
    else:
        padded = np.concatenate([corners[..., :1, :], corners, corners[..., -1:, :]], axis=-2)
        before, start, after, later = (padded[..., i : padded.shape[-2] - 3 + i, :] for i in range(4))
    t = np.arange(steps)[:, None] / steps
    shares = 0.5 * np.concatenate(
        [2 * t**2 - t - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], axis=1
    )
    points = shares @ np.stack([before, start, after, later], axis=-2)
    line = points.reshape(*points.shape[:-3], -1, 2)
    if not closed:
        line = np.concatenate([line, corners[..., -1:, :]], axis=-2)
    return xyz(line[..., 0], line[..., 1], z)
