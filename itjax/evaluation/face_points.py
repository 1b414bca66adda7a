"""The few points of a face mesh that the networks of published metrics need, per frame; NaN where no face is found."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from itjax.evaluation import finders
from itjax.evaluation.arcface import align, five_points
from itjax.evaluation.finders import Box, Network
from itjax.evaluation.landmarks import Landmarks
from itjax.evaluation.videos import FrameReader

# F frames


class FacePoints(NamedTuple):
    """One person's face in each frame, in pixels: 112 bytes a frame, where the mesh of 468 points has 11 kB.

    `five`: eyes, tip of the nose and corners of the mouth (x, y). `box`: left, top, right, bottom of the mesh.
    """

    five: Float[np.ndarray, "F 5 2"]
    box: Float[np.ndarray, "F 4"]


def points_of(mesh: Float[np.ndarray, "F 468 3"]) -> FacePoints:
    """The points of a face mesh in each frame; NaN where the mesh is NaN, which means that no face was found."""
    flat = mesh[:, :, :2]
    five = np.stack([five_points(points) for points in mesh]) if len(mesh) else np.zeros((0, 5, 2))
    return FacePoints(five, np.concatenate([flat.min(1), flat.max(1)], axis=1))


class Recorder:
    """Keeps the points of all persons' faces as the landmark tracker finds them, frame by frame."""

    def __init__(self, persons: int):
        self._persons: list[list[FacePoints]] = [[] for _ in range(persons)]

    def __call__(self, marks: Sequence[Landmarks | None]) -> None:
        """Adds a frame: the landmarks of each person, None where the face is not found."""
        for person, face in zip(self._persons, marks, strict=True):
            mesh = np.full((1, 468, 3), np.nan) if face is None else face.points[None]
            person.append(points_of(mesh))

    @property
    def people(self) -> list[FacePoints]:
        """The points of each person over all frames so far."""
        empty = points_of(np.zeros((0, 468, 3)))
        return [
            FacePoints(*(np.concatenate(parts) for parts in zip(empty, *frames, strict=True))) for frames in self._persons
        ]


def first_faces(
    reader: FrameReader, frames: int, detector: Network, persons: int, boxes: Sequence[Box] = ()
) -> list[UInt8[np.ndarray, "112 112 3"] | None]:  # fmt: skip
    """Each person's face, aligned for ArcFace, in the first of at most `frames` frames that shows it; None if none does."""
    seen: list[UInt8[np.ndarray, "112 112 3"] | None] = [None] * persons
    marks: list[Sequence[Landmarks | None]] = []
    find = finders.by_landmarks(detector, persons, boxes, marks.append)
    for _ in range(1 if reader.is_still else frames):
        piece = reader.read(1)
        if not len(piece):
            break
        find(piece)
        for number, face in enumerate(marks.pop()):
            if face is not None and seen[number] is None:
                seen[number] = align(piece[0], five_points(face.points))
        if all(face is not None for face in seen):
            break
    return seen
