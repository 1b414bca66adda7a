"""What the landmark detector needs is said where it is missing; and what is computed from its points."""

import sys

import numpy as np
import pytest

from itjax.errors import UserError
from itjax.evaluation import landmarks
from itjax.evaluation.landmarks import Detector, Landmarks


def face(yaw=0.0, roll=0.0, opening=0.1):
    """The points that are used, of a face of height 100 that is turned."""
    points = np.zeros((landmarks.POINTS, 3))
    points[landmarks.FOREHEAD], points[landmarks.CHIN] = (0, -50, 0), (0, 50, 0)
    points[landmarks.LEFT], points[landmarks.RIGHT] = (-40, 0, 0), (40, 0, 0)
    points[landmarks.UPPER_LIP], points[landmarks.LOWER_LIP] = (0, 25, 0), (0, 25 + 100 * opening, 0)
    cy, sy, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(roll), np.sin(roll)
    turned = points @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return Landmarks(turned @ np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]]), 1.0)


def test_the_opening_does_not_depend_on_the_pose():
    for yaw, roll in ((0, 0), (0.4, 0), (0, 0.5), (-0.3, -0.2)):
        assert face(yaw, roll, 0.12).opening == pytest.approx(0.12)
    assert face(opening=0.0).opening == 0


def test_the_pose_is_what_the_head_was_turned_by():
    assert face().pose == pytest.approx((0, 0, 0))
    assert face(yaw=0.4).pose == pytest.approx((0.4, 0, 0))
    assert face(roll=0.3).pose == pytest.approx((0, 0, 0.3))


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match="landmark detection needs ai-edge-litert"):
        Detector(tmp_path / "face_landmark.tflite")
