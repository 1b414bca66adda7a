"""Measures one video: reads it with what belongs to it, and computes every number that applies. The rest is said."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from itjax.errors import UserError
from itjax.evaluation import finders, truths
from itjax.evaluation.clip import Clip, FilePieces, Person
from itjax.evaluation.collect import Companions, Seen, collect
from itjax.evaluation.face_points import Recorder, first_faces
from itjax.evaluation.finders import Box, Factors, Finder
from itjax.evaluation.landmarks import Detector
from itjax.evaluation.numbers import Heard, Numbers, body, breaks, drift, following, identity, lips
from itjax.evaluation.sound import loudness, open_vowels
from itjax.evaluation.sound import speaking as audible
from itjax.evaluation.truths import Truth
from itjax.evaluation.videos import SOURCE_SUFFIXES, VIDEO_SUFFIXES, FrameReader, borders_in, companion
from itjax.media.companions import VOICE_SUFFIXES
from itjax.media.speech import load_track

# F frames · P persons


class Job(NamedTuple):
    """A video and what it is compared with; the folders hold files of the same name.

    `chunk`: frames of a chunk and those that two chunks share; None: as the file tells. `faces`: boxes of the faces in the
    first frame, for landmarks. `for_networks`: whether to tell what published networks are given (`VideoMetrics.clip`).
    """

    video: Path
    truth: Path | None = None
    source: Path | None = None
    floor: Path | None = None
    floor_db: float | None = None
    landmarks: Path | None = None
    faces: tuple[Box, ...] = ()
    chunk: tuple[int, int] | None = None
    for_networks: bool = False


class VideoMetrics(NamedTuple):
    """What was measured of a video: `numbers` by metric, `curves` (one value per second) by name, and what was left out.

    `error`: why nothing was measured, or "". `clip`: what published networks are given, if the job asks for it.
    """

    name: str
    frames: int
    numbers: dict[str, float]
    curves: dict[str, list[float]]
    left_out: list[str]
    error: str = ""
    clip: Clip | None = None


def measure(job: Job) -> VideoMetrics:
    """Measures a video; what is wrong with it or its companions is in the result, as one sentence each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            measured = _measured(job)
        except UserError as error:
            measured = VideoMetrics(job.video.stem, 0, {}, {}, [], str(error))
    told = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    return measured._replace(left_out=[*told, *measured.left_out])


def _measured(job: Job) -> VideoMetrics:
    reader = FrameReader(job.video)
    if reader.is_still:
        raise UserError(f"{job.video} is a picture, not a video.")
    numbers = Numbers(job.video)
    truth = _truth(job, reader.size, numbers)
    beside = _companions(job, truth, numbers)
    record = Recorder(_persons(job, truth)) if job.for_networks and job.landmarks is not None else None
    named, factors = _finders(job, truth, numbers, record)
    seen = collect(reader, named, factors, beside)
    if seen.num_frames < 2:
        raise UserError(f"{job.video}: it has one frame only; at least two are needed to measure anything.")
    if truth is not None and truth.num_frames < seen.num_frames:
        numbers.leave_out(f"its truth ends after {truth.num_frames} of {seen.num_frames} frames: lips and body until there")
    heard = _heard(job, truth, seen.num_frames, numbers)
    borders = [border for border in _borders(job, seen.num_frames) if border < seen.num_frames]
    _numbers(numbers, seen, truth, heard, borders, job)
    measured = VideoMetrics(job.video.stem, seen.num_frames, numbers.finite(), numbers.curves, numbers.left_out)
    if not job.for_networks:
        return measured
    return measured._replace(clip=_clip(job, reader.size, seen.num_frames, beside.source, record))


def _numbers(numbers: Numbers, seen: Seen, truth: Truth | None, heard: Heard, borders: Sequence[int], job: Job) -> None:
    for name, tracks in seen.tracks.items():
        lips(numbers, name, tracks, truth, heard)
    first = next(iter(seen.tracks.values()), [])
    body(numbers, first, truth, heard)
    identity(numbers, seen.factors)
    drift(numbers, seen.pixels)
    breaks(numbers, seen.pixels, seen.source, heard, borders)
    following(numbers, first, seen, truth, borders, job.floor_db)


def _truth(job: Job, size: tuple[int, int], numbers: Numbers) -> Truth | None:
    if job.truth is None:
        return None
    try:
        path = companion(job.truth, job.video.stem, (".json",))
        truth = truths.read_truth(path)
        truths.check_fits(truth, size, path, job.video)
    except UserError as error:
        numbers.leave_out(f"what needs its truth: {error}")
        return None
    return truth


def _companions(job: Job, truth: Truth | None, numbers: Numbers) -> Companions:
    """Opens what belongs to the video once, so that what cannot be read is left out before the video is read."""
    found: dict[str, Path] = {}
    for name, folder in (("source", job.source), ("floor", job.floor)):
        try:
            if folder is not None:
                path = folder if folder.is_file() else companion(folder, job.video.stem, SOURCE_SUFFIXES)
                FrameReader(path)
                found[name] = path
        except UserError as error:
            numbers.leave_out(f"what needs its {name}: {error}")
    finder = None
    if truth is None and job.landmarks is not None and "source" in found:
        finder = finders.by_landmarks(Detector(job.landmarks), _persons(job, truth), job.faces)
    return Companions(found.get("source"), found.get("floor"), finder, truth.tracks if truth else ())


def _finders(
    job: Job, truth: Truth | None, numbers: Numbers, record: Recorder | None
) -> tuple[dict[str, Finder], Factors | None]:  # fmt: skip
    """Finders of faces by the prefix of their metrics: that of drawn faces, if there is a truth, or else landmarks."""
    named: dict[str, Finder] = {} if truth is None else {"": finders.by_color(truth.people)}
    if job.landmarks is not None:
        prefix = "landmark_" if named else ""
        boxes = job.faces or ([_box(track, 0) for track in truth.tracks] if truth else ())
        named[prefix] = finders.by_landmarks(Detector(job.landmarks), _persons(job, truth), boxes, record)
    if not named:
        numbers.leave_out("lips, head and what is outside the speakers: no --truth and no --landmarks finds its face")
    return named, None if truth is None else finders.factor_shares(truth.people)


def _clip(
    job: Job, size: tuple[int, int], frames: int, source: Path | None, record: Recorder | None
) -> Clip:  # fmt: skip
    """What the published networks are given: of the source, as many frames as the video has."""
    pieces = None if source is None else FilePieces(source, size, frames)
    if record is None or job.landmarks is None:
        return Clip(job.video, FilePieces(job.video, size, frames), pieces)
    count, find = len(record.people), Detector(job.landmarks)
    faces = [None] * count if source is None else first_faces(FrameReader(source, size), frames, find, count, job.faces)
    voices: Sequence[Path | None] = [job.video] if count == 1 else _voices(job) or [None] * count
    people = [Person(*person) for person in zip(record.people, voices, faces, strict=True)]
    return Clip(job.video, FilePieces(job.video, size, frames), pieces, tuple(people))


def _box(track: finders.FaceTrack, number: int) -> Box:
    (x, y), half = track.center[number], track.size[number]
    return x - half, y - half, x + half, y + half


def _persons(job: Job, truth: Truth | None) -> int:
    if truth is not None:
        return len(truth.people)
    return max(1, len(job.faces), len(_voices(job)))


def _voices(job: Job) -> list[Path]:
    """The persons' own voices, next to the video or its source; none unless all are there."""
    folders = [job.video.parent, *([job.source] if job.source is not None and job.source.is_dir() else [])]
    for folder in folders:
        paths = [folder / f"{job.video.stem}{suffix}" for suffix in VOICE_SUFFIXES]
        if all(path.is_file() for path in paths):
            return paths
    return []


def _heard(job: Job, truth: Truth | None, frames: int, numbers: Numbers) -> Heard:
    """Loudness and open vowels of the sound, and who speaks: by truth, else the persons' voices, else the sound."""
    level: Float[np.ndarray, " F"] | None = None
    vowels: Float[np.ndarray, " F"] | None = None
    speech: Bool[np.ndarray, "P F"] | None = None
    try:
        samples = load_track(job.video)
        level, vowels = loudness(samples, frames), open_vowels(samples, frames)
        speech = audible(samples, frames)[None]
        if not speech.any():
            numbers.leave_out("what needs its sound: it is silent")
            level = vowels = speech = None
    except UserError as error:
        numbers.leave_out(f"what needs its sound: {error}" if truth is None else f"its sound, which has no track: {error}")
    if truth is not None:
        speech = np.stack([truths.speaking(person, frames) for person in truth.people])
    elif voices := _voices(job):
        try:
            speech = np.stack([audible(load_track(path), frames) for path in voices])
        except UserError as error:
            numbers.leave_out(f"who of the two speaks: {error}")
    return Heard(level, vowels, speech)


def _borders(job: Job, frames: int) -> list[int]:
    if job.chunk is None:
        return borders_in(job.video) if job.video.suffix.lower() in VIDEO_SUFFIXES[:2] else []
    length, shared = job.chunk
    return list(range(length, frames, length - shared))
