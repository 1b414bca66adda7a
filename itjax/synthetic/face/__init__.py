"""Drawn faces: their parameters, and the polygons of which they consist, in all frames at once."""

from itjax.synthetic.face.identity import Color, Identity, Look, Pose, darken, mix
from itjax.synthetic.face.lips import BETWEEN_LIPS, DEEP, MAX_GAP, MOUTH_POSITION, TEETH, TONGUE
from itjax.synthetic.face.pen import Layer
from itjax.synthetic.face.person import FacePositions, person_layers

__all__ = [
    "BETWEEN_LIPS",
    "DEEP",
    "MAX_GAP",
    "MOUTH_POSITION",
    "TEETH",
    "TONGUE",
    "Color",
    "FacePositions",
    "Identity",
    "Layer",
    "Look",
    "Pose",
    "darken",
    "mix",
    "person_layers",
]
