"""Polygons come out in the order in which pens drew them, with their sides moved inwards."""

import numpy as np

from itjax.synthetic.face.identity import Pose
from itjax.synthetic.face.pen import SHIFT, SPREAD, Pen, layers

FRAMES = 3
SQUARE = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
COLOR, OTHER = (1, 2, 3), (4, 5, 6)


def pens(*sizes):
    """Pens without rotation, for heads of these half heights in pixels, at pixel (100, 50)."""
    none, drawn = np.zeros(FRAMES), []
    origin = np.tile([100.0, 50.0], (FRAMES, 1))
    poses = [Pose(none, none, none, none, none, none + size) for size in sizes]
    return drawn, [Pen(drawn, pose, np.ones(FRAMES), origin, True) for pose in poses]


def box(points):
    """The box of a contour in each frame in pixels, relative to the camera's origin: left, top, right, bottom."""
    pixels = points / 2**SHIFT - [100, 50]
    return np.concatenate([pixels.min(1), pixels.max(1)], axis=1)


def close(points, half):
    """Whether a contour is a square of this half side, or one per frame, up to half a fixed-point step."""
    sides = np.broadcast_to(half, FRAMES)[:, None] * [-1, -1, 1, 1]
    return np.abs(box(points) - sides).max() <= 0.5 / 2**SHIFT


def test_contours_of_all_pens_and_kinds_keep_their_order_and_their_sides():
    drawn, (large, small) = pens(20.0, 10.0)
    growing = SQUARE * np.array([1.0, 2.0, 3.0])[:, None, None]
    seen = np.array([True, False, True])
    inset = SPREAD / np.sqrt(2)  # a corner moves by `SPREAD`, inwards along the diagonal
    large.fill(growing, COLOR, seen)
    small.fill(SQUARE[::-1], OTHER)  # the other way around: still inwards
    large.fill(SQUARE, COLOR, hole=0.5 * SQUARE)
    large.fill(SQUARE, OTHER, bold=True)
    first, second, ring, bold = layers(drawn)
    assert [each.color for each in (first, second, ring, bold)] == [COLOR, OTHER, COLOR, OTHER]
    assert first.shown is seen and second.shown is None
    assert close(first.contours[0], 20 * np.array([1, 2, 3]) - inset) and close(second.contours[0], 10 - inset)
    assert close(ring.contours[0], 20 - inset) and close(ring.contours[1], 10 - inset)
    assert close(bold.contours[0], 20)


def test_a_polygon_without_area_does_not_depend_on_rounding():
    line = np.array([[-1.0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]])  # a shut eye
    drawn, (pen,) = pens(20.0)
    pen.fill(line, COLOR)
    pen.fill(line + 1e-14 * np.array([[0, 1, 0], [0, -1, 0], [0, 1, 0], [0, 1, 0]]), COLOR)
    pen.fill(line + 1e-14 * np.array([[0, -1, 0], [0, 1, 0], [0, -1, 0], [0, -1, 0]]), COLOR)
    once, *again = layers(drawn)
    assert all(np.array_equal(once.contours[0], each.contours[0]) for each in again)
