"""Draws a face from parameters: identity, head pose, mouth shape, look; returns where its parts are in the picture."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from itjax.synthetic.mouth import Mouth, Track

# N points · H W pixels · x to the right, y down, z towards the viewer, from the head's centre in units of half its height

Color = tuple[int, int, int]  # RGB

SHIFT = 4  # fractional bits of OpenCV coordinates
MOUTH_POSITION = (0.0, 0.50, 0.80)
MAX_GAP = 0.34  # largest distance between the lips
DEEP, TONGUE, TEETH = (70, 22, 28), (158, 60, 86), (246, 244, 236)
BETWEEN_LIPS = (DEEP, TONGUE, TEETH)


class Identity(NamedTuple):
    """The fixed appearance of a person."""

    woman: bool
    skin: Color
    hair: Color
    hair_style: str  # "short", "long" or "no"
    eyes: Color
    lips: Color
    clothes: Color
    glasses: bool
    beard: bool
    width: float  # of the head, relative to its height
    eye_distance: float
    eye_size: float
    brow: float  # thickness
    nose: float  # length
    mouth: float  # half width at rest


class Pose(NamedTuple):
    """Head pose. Angles in radians; `x`, `y` (centre) and `size` (half height) in world units."""

    yaw: Track
    pitch: Track
    roll: Track
    x: Track
    y: Track
    size: Track


class Look(NamedTuple):
    """Motion in a face: eye opening 0..1, gaze -1..1, brows -1..1, corners of the mouth -1..1."""

    open: Track
    gaze_x: Track
    gaze_y: Track
    brows: Track
    smile: Track


class FacePositions(NamedTuple):
    """Positions in the picture in pixels; boxes are (left, top, right, bottom).

    Corners (`left`, `right`) and inner lips (`top`, `bottom`) of the mouth; `mouth_box`: its box including the lips;
    `mouth_area`: the box of all possible mouths at this head pose; eyes, chin; the head's box.
    """

    left: tuple[float, float]
    right: tuple[float, float]
    top: tuple[float, float]
    bottom: tuple[float, float]
    mouth_box: tuple[float, float, float, float]
    mouth_area: tuple[float, float, float, float]
    left_eye: tuple[float, float]
    right_eye: tuple[float, float]
    chin: tuple[float, float]
    head_box: tuple[float, float, float, float]


class Pen:
    """Draws onto a picture in a head's own coordinates. `scale` (pixels per world unit) and `origin` are the camera's."""

    def __init__(self, picture: UInt8[np.ndarray, "H W 3"], pose: Pose, scale: float, origin: tuple[float, float]):
        self.picture = picture
        self.size = pose.size * scale
        self._turn = _rotation(pose) * self.size
        self._middle = np.array([pose.x, pose.y]) * scale + origin

    def at(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 2"]:
        """Projects the points to picture pixels."""
        return points @ self._turn.T[:, :2] + self._middle

    def fill(self, points: Float[np.ndarray, "N 3"], color: Color) -> None:
        """Fills the polygon of the points."""
        cv2.fillPoly(self.picture, [self._fixed(points)], color, cv2.LINE_AA, SHIFT)

    def line(self, points: Float[np.ndarray, "N 3"], color: Color, width: float) -> None:
        """Draws a polyline; `width` is in units of half the head's height, at least one pixel."""
        thickness = max(1, round(width * self.size))
        cv2.polylines(self.picture, [self._fixed(points)], False, color, thickness, cv2.LINE_AA, SHIFT)

    def _fixed(self, points: Float[np.ndarray, "N 3"]) -> np.ndarray:
        return np.round(self.at(points) * 2**SHIFT).astype(np.int32)


def _rotation(pose: Pose) -> Float[np.ndarray, "3 3"]:
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (pose.yaw, pose.pitch, pose.roll))
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return roll @ pitch @ yaw


AROUND = np.linspace(0, 2 * np.pi, 33)[:-1]
ACROSS = np.linspace(-1, 1, 13)


def oval(x: float, y: float, z: float, width: float, height: float, part: slice = slice(None)) -> Float[np.ndarray, "N 3"]:
    """An ellipse around a point, or a part of it, starting at its right and passing its lower side first."""
    angles = AROUND[part]
    return np.stack([x + width * np.cos(angles), y + height * np.sin(angles), np.full(len(angles), z)], axis=1)


def mix(color: Color, other: Color, share: float) -> Color:
    """Linear mix: `share` 0 gives `color`, 1 gives `other`."""
    return tuple(round(a + (b - a) * share) for a, b in zip(color, other, strict=True))  # type: ignore[return-value]


def darken(color: Color, by: float) -> Color:
    """Darkens a colour: `by` 0 keeps it, 1 gives black; negative values lighten it."""
    return mix(color, (0, 0, 0) if by > 0 else (255, 255, 255), abs(by))


def draw(
    picture: UInt8[np.ndarray, "H W 3"], who: Identity, pose: Pose, mouth: Mouth, look: Look, scale: float,
    origin: tuple[float, float],
) -> FacePositions:  # fmt: skip
    """Draws a person into `picture`. World point (x, y) is at pixel `scale` * (x, y) + `origin`."""
    pen = Pen(picture, pose, scale, origin)
    # the shoulders follow the head's rotation only slightly
    body = Pen(picture, pose._replace(yaw=0.3 * pose.yaw, pitch=0.0, roll=0.2 * pose.roll), scale, origin)
    drop = 0.10 * mouth.jaw
    if who.hair_style == "long":
        pen.fill(oval(0.0, 0.12, -0.35, who.width * 1.22, 1.22), darken(who.hair, 0.25))
    body.fill(oval(0.0, 2.35, -0.3, 1.65, 1.25), who.clothes)
    body.fill(oval(0.0, 1.12, -0.1, 0.38, 0.42), darken(who.skin, 0.18))
    _head(pen, who, drop)
    _eyes(pen, who, look)
    pen.line(_curve([(-0.02, -0.05), (0.10, 0.12 + who.nose), (0.0, 0.17 + who.nose)], 1.0), darken(who.skin, 0.35), 0.045)
    if who.beard:
        sides = [
            (-who.width * 0.96, 0.15),
            (-0.62, 0.80 + drop),
            (0, 1.03 + drop),
            (0.62, 0.80 + drop),
            (who.width * 0.96, 0.15),
        ]
        inner = [(0.42, 0.33), (0, 0.30), (-0.42, 0.33)]
        pen.fill(_points([*sides, *inner], 0.55), darken(who.hair, 0.1))
    box = _mouth(pen, who, mouth, look.smile)
    return _seen(pen, who, box, drop)


def _points(places: Sequence[Sequence[Any]], z: float) -> Float[np.ndarray, "N 3"]:
    return np.array([(x, y, z) for x, y in places])


def _curve(places: Sequence[Sequence[Any]], z: float) -> Float[np.ndarray, "9 3"]:
    """A parabola through three points, the second at its middle."""
    (ax, ay), (bx, by), (cx, cy) = places
    t = np.linspace(0, 1, 9)
    weights = np.stack([(1 - t) * (1 - 2 * t), 4 * t * (1 - t), t * (2 * t - 1)])
    return np.stack([weights.T @ [ax, bx, cx], weights.T @ [ay, by, cy], np.full(9, z)], axis=1)


def _head(pen: Pen, who: Identity, drop: float) -> None:
    for side in (-1, 1):
        pen.fill(oval(side * who.width * 1.02, 0.05, -0.15, 0.13, 0.22), darken(who.skin, 0.12))
    outline = oval(0.0, 0.0, 0.0, who.width, 1.0)
    is_lower = outline[:, 1] > 0
    outline[is_lower, 1] *= 1 + drop  # the chin moves down with the jaw
    pen.fill(outline, who.skin)
    if who.hair_style != "no":
        hair = oval(0.0, -0.12, 0.05, who.width * 1.10, 0.98, slice(16, None))
        edge, root = who.width * 1.10, who.width * 0.92
        front = _points([(edge, -0.05), (root, -0.30), (0.35, -0.62), (-0.25, -0.55), (-root, -0.30), (-edge, -0.05)], 0.35)
        pen.fill(np.concatenate([hair, front]), who.hair)
        if who.hair_style == "long":
            for side in (-1, 1):
                strand = [(0.92, -0.4), (1.22, 0.0), (1.22, 0.9), (0.98, 1.0), (0.86, 0.2)]
                pen.fill(_points([(side * who.width * x, y) for x, y in strand], 0.2), who.hair)


def _eyes(pen: Pen, who: Identity, look: Look) -> None:
    white, size = (245, 245, 240), who.eye_size
    for side in (-1, 1):
        x, y, z = side * who.eye_distance, -0.12, 0.80
        height = size * 0.62 * max(look.open, 0.06)
        pen.fill(oval(x, y, z, size, height), white if look.open > 0.15 else darken(who.skin, 0.3))
        if look.open > 0.15:
            iris = oval(x + 0.3 * size * look.gaze_x, y + 0.2 * size * look.gaze_y, z + 0.02, size * 0.5, size * 0.5)
            iris[:, 1] = iris[:, 1].clip(y - height, y + height)
            pen.fill(iris, who.eyes)
            pupil = oval(x + 0.3 * size * look.gaze_x, y + 0.2 * size * look.gaze_y, z + 0.03, size * 0.24, size * 0.24)
            pupil[:, 1] = pupil[:, 1].clip(y - height, y + height)
            pen.fill(pupil, (20, 18, 18))
        brow = y - 0.24 - 0.09 * look.brows
        inner = brow + 0.06 * max(0.0, -look.brows)  # a frown pulls the inner ends down
        ends = [(x - side * size * 1.1, inner), (x, brow - 0.05), (x + side * size * 1.2, brow + 0.03)]
        pen.line(_curve(ends, 0.82), darken(who.hair, 0.35), who.brow)
        if who.glasses:
            pen.line(oval(x, y, 0.95, size * 1.55, size * 1.35)[list(range(32)) + [0]], (35, 35, 40), 0.035)
    if who.glasses:
        inner = who.eye_distance - who.eye_size * 1.5
        pen.line(_points([(-inner, -0.12), (inner, -0.12)], 0.95), (35, 35, 40), 0.035)


def _mouth(pen: Pen, who: Identity, mouth: Mouth, smile: float) -> Float[np.ndarray, "4 3"]:
    """Draws the mouth; returns its corners (left, right) and inner lips (top, bottom)."""
    x, y, z = MOUTH_POSITION
    half = who.mouth * (0.82 + 0.36 * mouth.width - 0.38 * mouth.rounding + 0.15 * smile)
    z += 0.08 * mouth.rounding
    gap = MAX_GAP * mouth.jaw
    arch = np.sqrt(1 - ACROSS**2)  # 0 at the corners
    # a smile raises the corners, an open jaw slightly raises the upper lip
    lift = -0.09 * smile * ACROSS**2 - 0.035 * mouth.jaw * arch
    upper, lower = y + lift, y + lift + gap * arch
    thick = 0.075 + 0.02 * mouth.rounding
    bow = thick * arch * (1 - 0.25 * np.exp(-((ACROSS / 0.18) ** 2)))
    outer = _between(half * 1.06 * ACROSS + x, upper - bow, lower + 1.15 * thick * arch, z)
    pen.fill(outer, who.lips)
    across = half * 0.94 * ACROSS + x
    if gap > 0.02:
        pen.fill(_between(across, upper, lower, z), DEEP)
        tongue = np.minimum(gap * (0.25 + 0.5 * mouth.tongue), gap) * arch
        pen.fill(_between(across * 0.8, lower - tongue, lower, z), TONGUE)
        teeth = np.minimum((0.035 + 0.06 * mouth.teeth) * arch, lower - upper)
        pen.fill(_between(across, upper, upper + teeth, z), TEETH)
    else:
        pen.line(np.stack([across, upper + gap / 2 * arch, np.full(len(across), z)], axis=1), darken(who.lips, 0.45), 0.03)
    middle = len(ACROSS) // 2
    return np.array([(x - half, upper[0], z), (x + half, upper[-1], z), (x, upper[middle], z), (x, lower[middle], z)])


def _between(x: np.ndarray, top: np.ndarray, bottom: np.ndarray, z: float) -> Float[np.ndarray, "N 3"]:
    forward = np.stack([x, top, np.full(len(x), z)], axis=1)
    back = np.stack([x, bottom, np.full(len(x), z)], axis=1)[::-1]
    return np.concatenate([forward, back])


def _seen(pen: Pen, who: Identity, mouth: Float[np.ndarray, "4 3"], drop: float) -> FacePositions:
    lips = pen.at(mouth + np.array([[-0.03, 0, 0], [0.03, 0, 0], [0, -0.10, 0], [0, 0.12, 0]]))
    x, y, z = MOUTH_POSITION
    area = pen.at(oval(x, y + MAX_GAP / 2, z, 1.2 * who.mouth, MAX_GAP / 2 + 0.12))
    eyes = pen.at(_points([(-who.eye_distance, -0.12), (who.eye_distance, -0.12)], 0.80))
    chin = pen.at(_points([(0, 1 + drop)], 0.0))[0]
    head = pen.at(oval(0.0, 0.0, 0.0, who.width, 1.0))
    place = lambda point: (float(point[0]), float(point[1]))
    box = lambda points: (*place(points.min(0)), *place(points.max(0)))
    left, right, top, bottom = map(place, pen.at(mouth))
    mouth_box, mouth_area, head_box = box(lips), box(area), box(head)
    left_eye, right_eye = map(place, eyes[:2])
    return FacePositions(left, right, top, bottom, mouth_box, mouth_area, left_eye, right_eye, place(chin), head_box)
