"""Where the faces of a video come from: the colours of drawn people, or MediaPipe's landmarks for everyone."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, UInt8

from itjax.evaluation import drawn_faces, drawn_factors
from itjax.evaluation.drawn_views import PLACES
from itjax.evaluation.faces import FaceTrack
from itjax.evaluation.identity import factors_seen
from itjax.evaluation.landmarks import Landmarks

# F frames · H W pixels

Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom in pixels
Network: TypeAlias = Callable[[UInt8[np.ndarray, "H W 3"], Box], Landmarks]  # `landmarks.Detector`
Factors: TypeAlias = Callable[[UInt8[np.ndarray, "F H W 3"], list[FaceTrack]], list[Float[np.ndarray, " F"]]]
"""Returns the fraction of each person's factors that are seen again in each frame of the next piece."""
Finder: TypeAlias = Callable[[UInt8[np.ndarray, "F H W 3"]], list[FaceTrack]]
"""Returns the tracks of all persons in the next piece of a video; pieces are given in order."""

HEIGHTS = (0.8, 0.55, 0.38, 0.26)  # of faces that are looked for, relative to the picture's shorter side
STRIDE = 0.35  # of a face's height, between the places where one is looked for
SEEN = 0.5  # the detector's score from which a face is seen
LOOK_AGAIN = 12  # frames after which a lost face is looked for in the whole picture
BROWS, EYES = (105, 334), ((33, 133), (362, 263))  # points: middle of a brow, corners of an eye; left, then right


def by_color(people: Sequence[dict[str, Any]]) -> Finder:
    """Finds the drawn people of a truth by their colours. `people`: entries of the truth's JSON."""
    frames_before = 0

    def find(frames: UInt8[np.ndarray, "F H W 3"]) -> list[FaceTrack]:
        nonlocal frames_before
        first, frames_before = frames_before, frames_before + len(frames)
        return [_drawn(frames, person, first) for person in people]

    return find


def _drawn(frames: UInt8[np.ndarray, "F H W 3"], person: dict[str, Any], first: int) -> FaceTrack:
    """Follows a person from where the truth has it at the start of the piece; not beyond the truth's end."""
    person = _from(person, first)
    known = min(len(frames), len(person["seen"]["head_box"]))
    if not known:
        return _unseen(len(frames))
    track, rest = drawn_faces.track(frames[:known], person), _unseen(len(frames) - known)
    return FaceTrack(*(np.concatenate(curves) for curves in zip(track, rest, strict=True)))


def _from(person: dict[str, Any], first: int) -> dict[str, Any]:
    """The person in the truth of a clip that starts with the frame `first`."""
    return {**person, "seen": {name: person["seen"][name][first:] for name in PLACES}}


def factor_shares(people: Sequence[dict[str, Any]]) -> Factors:
    """Sees the factors of the drawn people of a truth again, where `by_color` found them; NaN beyond the truth's end."""
    frames_before = 0

    def shares(frames: UInt8[np.ndarray, "F H W 3"], tracks: list[FaceTrack]) -> list[Float[np.ndarray, " F"]]:
        nonlocal frames_before
        first, frames_before = frames_before, frames_before + len(frames)
        found = []
        for person, track in zip(people, tracks, strict=True):
            person, share = _from(person, first), np.zeros(len(frames))
            if track.found.any():
                factors = drawn_factors.factors(frames, person, track)
                share = factors_seen(factors, track.found)
            share[len(person["seen"]["head_box"]) :] = np.nan
            found.append(share)
        return found

    return shares


def by_landmarks(
    detector: Network, persons: int = 1, boxes: Sequence[Box] = (),
    record: Callable[[Sequence[Landmarks | None]], object] | None = None,
) -> Finder:  # fmt: skip
    """Finds faces by landmarks: in `boxes` of the first frame or where one looks like a face, then from frame to frame.

    Persons are ordered from left to right, as they are seen first. A face that is lost is looked for again. `record` is
    given all persons' landmarks of each frame.
    """
    heads: list[Box | None] = [*boxes, *[None] * persons][:persons]
    lost = [LOOK_AGAIN] * persons

    def find(frames: UInt8[np.ndarray, "F H W 3"]) -> list[FaceTrack]:
        rows: list[list[Landmarks | None]] = []
        for frame in frames:
            if any(head is None for head in heads) and max(lost) >= LOOK_AGAIN:
                _look_around(detector, frame, heads)
                lost[:] = [0] * persons
            seen: list[Landmarks | None] = []
            for number, head in enumerate(heads):
                marks = None if head is None else detector(frame, head)
                if marks is None or marks.score < SEEN:
                    lost[number] += 1
                    marks = None
                    if lost[number] >= LOOK_AGAIN:
                        heads[number] = None
                else:
                    lost[number], heads[number] = 0, _head(marks)
                seen.append(marks)
            rows.append(seen)
            if record is not None:
                record(seen)
        return [_track([row[number] for row in rows]) for number in range(persons)]

    return find


def _look_around(detector: Network, frame: UInt8[np.ndarray, "H W 3"], heads: list[Box | None]) -> None:
    """Fills the gaps in `heads` with the most face-like places of a picture that are not taken, from left to right."""
    height, width = frame.shape[:2]
    candidates: list[tuple[float, Box]] = []
    for share in HEIGHTS:
        side = share * min(height, width)
        for y in np.arange(side / 2, height - side / 2 + 1, STRIDE * side):
            for x in np.arange(side / 2, width - side / 2 + 1, STRIDE * side):
                marks = detector(frame, (x - side / 2, y - side / 2, x + side / 2, y + side / 2))
                if marks.score > SEEN:
                    again = detector(frame, _head(marks))  # centred on what was found, a face looks more like one
                    candidates.append((again.score, _head(again)))
    taken = [head for head in heads if head is not None]
    found: list[Box] = []
    for score, head in sorted(candidates, reverse=True):
        if score > SEEN and len(taken) + len(found) < len(heads) and all(_apart(head, other) for other in taken + found):
            found.append(head)
    for head in sorted(found):
        heads[heads.index(None)] = head


def _head(marks: Landmarks) -> Box:
    (left, top), (right, bottom) = marks.points[:, :2].min(0), marks.points[:, :2].max(0)
    x, half = (left + right) / 2, max((bottom - top) / 2, 1.0)
    return x - half, (top + bottom) / 2 - half, x + half, (top + bottom) / 2 + half


def _apart(a: Box, b: Box) -> bool:
    distance = np.hypot(a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]) / 2
    return bool(distance > 0.5 * max(a[3] - a[1], b[3] - b[1]))


def _track(marks: Sequence[Landmarks | None]) -> FaceTrack:
    track = _unseen(len(marks))
    for number, face in enumerate(marks):
        if face is None:
            continue
        left, top, right, bottom = _head(face)
        track.found[number] = True
        track.center[number] = (left + right) / 2, (top + bottom) / 2
        track.size[number] = (bottom - top) / 2
        track.pose[number], track.opening[number], track.brows[number] = face.pose, face.opening, brow_height(face)
    return track


def brow_height(marks: Landmarks) -> float:
    """Distance from the eyes' corners to the middle of the brows, relative to the face's height; blinks do not count."""
    _, top, _, bottom = _head(marks)
    pairs = zip(BROWS, EYES, strict=True)
    gaps = [np.linalg.norm(marks.points[brow, :2] - marks.points[list(eye), :2].mean(0)) for brow, eye in pairs]
    return float(np.mean(gaps)) / (bottom - top)


def _unseen(frames: int) -> FaceTrack:
    unknown: Float[np.ndarray, " F"] = np.full(frames, np.nan)
    return FaceTrack(
        np.zeros(frames, bool), np.full((frames, 2), np.nan), unknown.copy(), np.full((frames, 3), np.nan),
        unknown.copy(), unknown.copy(),
    )  # fmt: skip


def joined(pieces: Sequence[list[FaceTrack]]) -> list[FaceTrack]:
    """The tracks of all persons over a whole video, from those of its pieces."""
    return [
        FaceTrack(*(np.concatenate(parts) for parts in zip(*person, strict=True))) for person in zip(*pieces, strict=True)
    ]
