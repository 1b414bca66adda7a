"""Faces are looked for, followed from frame to frame, and found again, with a network that sees bright discs."""

import numpy as np
import pytest
from stand_ins import Discs, film, path

from itjax.evaluation import finders


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
