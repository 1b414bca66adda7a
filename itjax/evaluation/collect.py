"""One pass over a video, piece by piece: all the curves that its numbers are computed from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from itjax.evaluation import finders, pixels
from itjax.evaluation.camera import CameraTracker
from itjax.evaluation.faces import FaceTrack
from itjax.evaluation.finders import Factors, Finder
from itjax.evaluation.following import squared_error_outside
from itjax.evaluation.pixels import PixelCurves
from itjax.evaluation.regions import speakers
from itjax.evaluation.videos import FrameReader

# F frames · H W pixels · E frames that the video and its source have in common


class Source(NamedTuple):
    """The source of a dubbed video as curves over the frames that both have."""

    is_still: bool
    step: Float[np.ndarray, " E"]
    camera: Float[np.ndarray, "E 3"]
    tracks: list[FaceTrack]  # none without a finder for it
    error_outside: Float[np.ndarray, " E"]  # mean squared difference outside the speakers; NaN if it is not known where
    floor_error: Float[np.ndarray, " E"] | None  # the same, of the VAE's round trip of the source


class Seen(NamedTuple):
    """A video as curves. `tracks`: by finder, then by person."""

    pixels: PixelCurves
    camera: Float[np.ndarray, "F 3"]
    tracks: dict[str, list[FaceTrack]]
    factors: list[Float[np.ndarray, " F"]]
    source: Source | None

    @property
    def num_frames(self) -> int:
        """Number of frames of the video."""
        return len(self.pixels.step)


class Companions(NamedTuple):
    """What a video is compared with while it is read."""

    source: Path | None = None
    floor: Path | None = None
    source_finder: Finder | None = None
    places: Sequence[FaceTrack] = ()  # where the speakers should be, used while nothing finds them


class _Side:
    """A video's source, or the round trip of one: read along with it."""

    def __init__(self, path: Path, size: tuple[int, int]):
        self.reader, self.before, self.camera = FrameReader(path, size), None, CameraTracker()
        self.step: list[np.ndarray] = []
        self.motion: list[np.ndarray] = []
        self.tracks: list[list[FaceTrack]] = []


def collect(reader: FrameReader, named: dict[str, Finder], factors: Factors | None, beside: Companions) -> Seen:
    """Reads a video once. `named`: finders by name; the first one says where the speakers are.

    Raises:
        UserError: If the source or the floor cannot be read.
    """
    size = reader.size
    source = None if beside.source is None else _Side(beside.source, size)
    floor = None if beside.floor is None else FrameReader(beside.floor, size)
    found: dict[str, list[list[FaceTrack]]] = {name: [] for name in named}
    curves: list[PixelCurves] = []
    positions: list[np.ndarray] = []
    shares: list[list[np.ndarray]] = []
    errors: list[np.ndarray] = []
    floors: list[np.ndarray] = []
    camera, before, start = CameraTracker(), None, 0
    while len(frames := reader.read(reader.piece_frames)):
        for name, find in named.items():
            found[name].append(find(frames))
        first = next(iter(found.values()))[-1] if found else []
        inside = _inside(first, beside.places, start, len(frames), size)
        curves.append(pixels.pixel_curves(frames, before))
        positions.append(camera(frames, inside))
        if factors is not None:
            shares.append(factors(frames, first))
        if source is not None:
            original = source.reader.read(len(frames))
            inside = inside[: len(original)] | _source_piece(source, original, beside, start, size)
            errors.append(_error(frames, original, inside))
            if floor is not None:
                round_trip = floor.read(len(original))
                floors.append(_error(round_trip, original, inside))
        before, start = frames[-1], start + len(frames)
    if not curves:
        raise ValueError("a video without frames")
    return Seen(
        pixels.joined(curves),
        np.concatenate(positions),
        {name: finders.joined(pieces) for name, pieces in found.items()},
        [np.concatenate(person) for person in zip(*shares, strict=True)],
        None if source is None else _joined(source, errors, floors if floor is not None else None),
    )


def _inside(
    tracks: Sequence[FaceTrack], places: Sequence[FaceTrack], start: int, frames: int, size: tuple[int, int]
) -> Bool[np.ndarray, "F H W"]:  # fmt: skip
    """The speakers of a piece, where they are found, or else where they should be."""
    known = [track for track in tracks if np.isfinite(track.size).any()]
    expected = [FaceTrack(*(curve[start : start + frames] for curve in track)) for track in places]
    return speakers(known or [track for track in expected if len(track.found)], frames, size)


def _source_piece(
    source: _Side, original: UInt8[np.ndarray, "E H W 3"], beside: Companions, start: int, size: tuple[int, int]
) -> Bool[np.ndarray, "E H W"]:  # fmt: skip
    """Adds a piece of the source to its curves; returns where its speakers are."""
    tracks = [] if beside.source_finder is None else beside.source_finder(original)
    inside = _inside(tracks, beside.places, start, len(original), size)
    if len(original):
        source.tracks.append(tracks)
        source.step.append(pixels.pixel_curves(original, source.before).step)
        source.motion.append(source.camera(original, inside))
        source.before = original[-1]
    return inside


def _error(
    frames: UInt8[np.ndarray, "F H W 3"], original: UInt8[np.ndarray, "E H W 3"], inside: Bool[np.ndarray, "E H W"]
) -> Float[np.ndarray, " n"]:  # fmt: skip
    """The error outside the speakers of the frames that both have; NaN if it is not known where the speakers are."""
    count = min(len(frames), len(original))
    if not inside.any():
        return np.full(count, np.nan)
    return squared_error_outside(frames[:count], original[:count], inside[:count])


def _joined(side: _Side, errors: list[np.ndarray], floors: list[np.ndarray] | None) -> Source:
    together: Any = lambda pieces, *shape: np.concatenate(pieces) if pieces else np.zeros((0, *shape))
    tracks = finders.joined(side.tracks) if side.tracks and side.tracks[0] else []
    floor = None if floors is None else together(floors)
    return Source(side.reader.is_still, together(side.step), together(side.motion, 3), tracks, together(errors), floor)
