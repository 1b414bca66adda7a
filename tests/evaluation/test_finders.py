"""Faces are looked for, followed from frame to frame, and found again, with a network that sees bright discs."""

import numpy as np
import pytest

from itjax.evaluation import finders, landmarks
from itjax.evaluation.landmarks import Landmarks


class Discs:
    """A network to which a bright disc is a face: it gives its place and size wherever most of it is in the crop."""

    calls = 0

    def __call__(self, picture, head):
        self.calls += 1
        middle, side = np.array([head[0] + head[2], head[1] + head[3]]) / 2, landmarks.CROP_SCALE * (head[3] - head[1]) / 2
        left, top, right, bottom = (round(value) for value in (*(middle - side), *(middle + side)))
        height, width = picture.shape[:2]
        crop = picture[max(0, top) : max(0, min(height, bottom)), max(0, left) : max(0, min(width, right)), 0] > 128
        points = np.zeros((landmarks.POINTS, 3))
        if not crop.any():
            return Landmarks(points, 0.0)
        rows, columns = np.nonzero(crop)
        center = np.array([columns.mean() + max(0, left), rows.mean() + max(0, top)])
        half = np.sqrt(crop.sum() / np.pi)
        points[:, :2] = center
        points[landmarks.FOREHEAD, :2], points[landmarks.CHIN, :2] = center - (0, half), center + (0, half)
        points[landmarks.LEFT, :2], points[landmarks.RIGHT, :2] = center - (half, 0), center + (half, 0)
        fits = 0.4 < half / (0.5 * (bottom - top)) < 0.9
        return Landmarks(points, 0.9 if fits else 0.1)


def film(*paths, radius=9, size=(64, 128)):
    """Discs that move along paths of centres (x, y); None: hidden."""
    y, x = np.mgrid[: size[0], : size[1]]
    frames = np.zeros((len(paths[0]), *size, 3), np.uint8)
    for path in paths:
        for frame, place in zip(frames, path, strict=True):
            if place is not None:
                frame[np.hypot(x - place[0], y - place[1]) <= radius] = 255
    return frames


def path(x, y, frames=40):
    return [(x + 0.5 * i, y + 4 * np.sin(i / 9)) for i in range(frames)]


def test_a_face_is_looked_for_once_and_then_followed_over_pieces():
    detector, where = Discs(), path(30, 30)
    find, frames = finders.by_landmarks(detector), film(where)
    pieces = [find(frames[:1])]
    looked = detector.calls
    pieces += [find(frames[1:13]), find(frames[13:])]
    (track,) = finders.joined(pieces)
    assert detector.calls == looked + 39 and track.found.all()
    assert track.center == pytest.approx(np.array(where), abs=1.0) and track.size == pytest.approx(np.full(40, 9), abs=1)


def test_two_faces_are_ordered_from_left_to_right_or_as_their_boxes():
    right, left = path(75, 32), path(20, 32)
    frames = film(right, left)
    first, second = finders.by_landmarks(Discs(), 2)(frames)
    assert first.center[:, 0].max() < second.center[:, 0].min()
    box = (66.0, 23.0, 84.0, 41.0)
    (track,) = finders.by_landmarks(Discs(), 1, [box])(frames)
    assert track.center == pytest.approx(np.array(right), abs=1.0)


def test_a_face_that_is_hidden_is_unknown_and_found_again():
    where = path(20, 30)
    hidden = [None if 10 <= i < 20 else place for i, place in enumerate(where)]
    hidden[20:] = [(x + 60, y) for x, y in where[20:]]  # comes back somewhere else
    (track,) = finders.by_landmarks(Discs())(film(hidden))
    assert track.found[:10].all() and not track.found[10:20].any() and np.isnan(track.opening[10:20]).all()
    assert track.found[-8:].all() and track.center[-1] == pytest.approx(hidden[-1], abs=1.0)


def test_no_face_is_no_face():
    (track,) = finders.by_landmarks(Discs())(np.zeros((5, 64, 64, 3), np.uint8))
    assert not track.found.any() and np.isnan(track.center).all()
