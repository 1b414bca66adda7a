"""A video as the networks of published metrics are given it: frames in pieces, and what is known of its faces. No JAX."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import UInt8

from itjax.evaluation.face_points import FacePoints
from itjax.evaluation.videos import FrameReader

# n frames of a piece · H W pixels

MULTIPLE = 16  # frames of all pieces but the last are a multiple of it: clips of so many frames do not cross pieces

Pieces: TypeAlias = Callable[[], Iterator[UInt8[np.ndarray, "n H W 3"]]]
"""Returns the frames of a video from its start, in order, in pieces of a multiple of 16 frames (but for the last)."""


class Person(NamedTuple):
    """A face of a video. `voice`: a file with the person's own voice. `source_face`: aligned for ArcFace. None: unknown."""

    points: FacePoints
    voice: Path | None = None
    source_face: UInt8[np.ndarray, "112 112 3"] | None = None


class Clip(NamedTuple):
    """A video in the file `path`, its source (None if it is not known), and its people (none without --landmarks)."""

    path: Path
    frames: Pieces
    source: Pieces | None = None
    people: tuple[Person, ...] = ()


@dataclass(frozen=True)
class FilePieces:
    """The first `most` frames of a file, scaled and cropped to `size` (height, width); of a picture, the one it has."""

    path: Path
    size: tuple[int, int]
    most: int

    def __call__(self) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
        """Reads the file from its start; only a piece is in memory.

        Raises:
            UserError: If it cannot be read.
        """
        reader = FrameReader(self.path, self.size)
        left = 1 if reader.is_still else self.most
        length = max(1, reader.piece_frames // MULTIPLE) * MULTIPLE
        while left and len(frames := reader.read(min(length, left))):
            left -= len(frames)
            yield frames
