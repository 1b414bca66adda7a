"""From the curves of a video to its numbers, by kind. What cannot be computed is noted instead."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from itjax.evaluation import body as bodies
from itjax.evaluation import camera, curves, persons, seams
from itjax.evaluation import drift as drifts
from itjax.evaluation import following as follows
from itjax.evaluation import lips as mouths
from itjax.evaluation.collect import Seen, Source
from itjax.evaluation.faces import FaceTrack
from itjax.evaluation.pixels import PixelCurves
from itjax.evaluation.truths import Truth
from itjax.media.containers import FRAME_RATE

# F frames · P persons

LEAST_FOUND = 0.5  # fraction of frames in which a face must be found to be measured
BODY: dict[str, Callable[[FaceTrack], Float[np.ndarray, " F"]]] = {
    "head_sync": bodies.head_speed, "nod_sync": lambda track: track.pose[:, 1], "brow_sync": lambda track: track.brows,
}  # fmt: skip
LEFT_OUT = ": left out: "  # between a video's name and what is not measured of it


class Heard(NamedTuple):
    """The sound: loudness and open vowels per frame, and who speaks when; None if it is not known."""

    level: Float[np.ndarray, " F"] | None
    vowels: Float[np.ndarray, " F"] | None
    speaking: Bool[np.ndarray, "P F"] | None


class Numbers:
    """Collects the numbers of a video, its curves, and what was left out and why."""

    def __init__(self, video: Path):
        self._video = video
        self.values: dict[str, float] = {}
        self.curves: dict[str, list[float]] = {}
        self.left_out: list[str] = []

    def leave_out(self, text: str) -> None:
        """Notes what is not measured, and why."""
        self.left_out.append(f"{self._video.name}{LEFT_OUT}{text}")

    def add(self, what: str, compute: Callable[[], dict[str, float]]) -> None:
        """Adds computed numbers; if they cannot be computed (ValueError), notes that `what` is left out."""
        try:
            self.values |= compute()
        except ValueError as error:
            self.leave_out(f"{what}: {error}")

    def curve(self, name: str, values: np.ndarray) -> None:
        """Adds a curve, by the second."""
        if len(seconds := curves.per_second(values)) and np.isfinite(seconds).any():
            self.curves[name] = [round(float(value), 4) for value in seconds]

    def finite(self) -> dict[str, float]:
        """The numbers that are defined for this video."""
        return {name: float(value) for name, value in self.values.items() if np.isfinite(value)}


def lips(numbers: Numbers, prefix: str, tracks: Sequence[FaceTrack], truth: Truth | None, heard: Heard) -> None:
    """Lips and, for two persons, who moves when who speaks."""
    openings = [track.opening for track in tracks]
    looked_at = None if truth is None or prefix else truth.num_frames  # drawn faces are not looked for beyond their truth
    found = [float(np.isfinite(opening[:looked_at]).mean()) for opening in openings]
    numbers.values["faces_found"] = float(np.mean(found))
    if min(found) < LEAST_FOUND:
        return numbers.leave_out(
            f"lips and head ({prefix or 'faces'}): a face is found in {min(found):.0%} of the frames only"
        )
    numbers.add(f"{prefix}sync", lambda: _sync(prefix, openings, truth, heard))
    if heard.speaking is None or prefix or len(heard.speaking) != len(openings):
        return
    pairs = list(zip(openings, heard.speaking, strict=True))
    numbers.values["silence"] = _mean([mouths.open_in_silence(*pair) for pair in pairs])
    if len(pairs) > 1:
        both = np.stack(openings), heard.speaking
        numbers.values["wrong_speaker"] = persons.wrong_speaker(*both)
        numbers.values["wrong_speaker_rate"] = persons.wrong_speaker_rate(*both)


def _sync(prefix: str, openings: list[np.ndarray], truth: Truth | None, heard: Heard) -> dict[str, float]:
    frames = len(openings[0])
    if truth is not None:
        people = zip(openings, truth.tracks, heard.speaking if heard.speaking is not None else (), strict=True)
        pairs = [(found, true.opening) for found, true, spoken in people if spoken.any()]
    elif heard.vowels is not None and len(openings) == 1:
        pairs = [(openings[0], heard.vowels)]
    else:
        return {}
    frames = min(frames, *(len(reference) for _, reference in pairs)) if pairs else 0
    results = [curves.sync(found[:frames], reference[:frames]) for found, reference in pairs]
    if not results:
        return {}
    synced = {
        "sync": _mean([result.correlation for result in results]),
        "lag": _mean([float(result.best_lag) for result in results]),
    }
    if not prefix:
        synced["sync_at_lag"] = _mean([result.best for result in results])
    return {prefix + name: value for name, value in synced.items()}


def body(numbers: Numbers, tracks: Sequence[FaceTrack], truth: Truth | None, heard: Heard) -> None:
    """Motion of head and brows against their truth, or else against loudness."""
    looked_at = None if truth is None else truth.num_frames
    shares = [np.isfinite(track.center[:looked_at]).all(1).mean() for track in tracks]
    moving = [number for number, share in enumerate(shares) if share >= LEAST_FOUND]
    if not moving:
        return
    numbers.add("jitter", lambda: {"jitter": _mean([bodies.jitter(tracks[number]) for number in moving])})
    for name, curve_of in BODY.items():
        if truth is not None:
            pairs = [(curve_of(tracks[number]), curve_of(truth.tracks[number])) for number in moving]
        elif heard.level is not None and len(tracks) == 1:
            pairs = [(curve_of(tracks[0]), heard.level)]
        else:
            return
        numbers.add(name, partial(_correlations, name, pairs))


def _correlations(name: str, pairs: Sequence[tuple[Float[np.ndarray, " F"], Float[np.ndarray, " G"]]]) -> dict[str, float]:
    """The mean over the persons; ValueError if too few frames have values."""
    found = []
    for curve, reference in pairs:
        frames = min(len(curve), len(reference))
        found.append(curves.correlation_of_enough(curve[:frames], reference[:frames]))
    return {name: _mean(found)}


def identity(numbers: Numbers, shares: Sequence[Float[np.ndarray, " F"]]) -> None:
    """The fraction of each drawn person's factors that are seen again."""
    if not len(shares):
        return
    together = np.mean(shares, axis=0)
    numbers.values["identity"] = _mean(together)
    numbers.curve("identity", together)
    if len(together) >= 2 * FRAME_RATE:
        numbers.add("identity drift", lambda: {"identity_drift": curves.change_per_10_s(together)})


def drift(numbers: Numbers, pixels: PixelCurves) -> None:
    """Colour, brightness and sharpness over time."""
    shifts = drifts.color_curve(pixels.color)
    numbers.curves["color"] = [round(float(value), 4) for value in shifts]
    numbers.curve("brightness", pixels.brightness)
    numbers.curve("sharpness", pixels.sharpness)
    numbers.add("colour drift", lambda: {"color_drift": drifts.color_drift(pixels.color)})
    if len(pixels.step) >= 2 * FRAME_RATE:
        numbers.add("brightness drift", lambda: {"brightness_drift": curves.change_per_10_s(pixels.brightness)})
        numbers.add("sharpness drift", lambda: {"sharpness_drift": drifts.relative_drift(pixels.sharpness)})


def breaks(
    numbers: Numbers, pixels: PixelCurves, source: Source | None, heard: Heard, borders: Sequence[int]
) -> None:  # fmt: skip
    """Seams, frozen frames and flashes."""
    frames = len(pixels.step)
    if borders:
        ratios = seams.seams(pixels.step, borders)
        numbers.values |= {"seam": float(np.mean(ratios)), "worst_seam": max(ratios)}
    known, moving = False, np.zeros(frames, bool)
    if source is not None and not source.is_still and len(source.step) > 1:
        known, moving[: len(source.step)] = True, ~seams.still(source.step)[:frames]
    if heard.speaking is not None:
        known, moving = True, moving | heard.speaking.any(0)
    numbers.values["frozen"] = seams.frozen(pixels.step, moving if known else np.ones(frames, bool))
    sizes = seams.flashes(pixels.brightness)
    numbers.values["flashes"] = len(sizes) * 10 * FRAME_RATE / frames
    if sizes:
        numbers.values["largest_flash"] = max(sizes)
    numbers.curve("step", pixels.step)


def following(
    numbers: Numbers, tracks: Sequence[FaceTrack], seen: Seen, truth: Truth | None, borders: Sequence[int],
    floor_db: float | None,
) -> None:  # fmt: skip
    """Head, camera and background against the source's; head and camera against the truth's where there is no source."""
    source = seen.source
    originals = truth.tracks if truth is not None else source.tracks if source is not None else []
    if source is None or not source.is_still:
        _head(numbers, tracks, originals, borders)
    reference = source.camera if source is not None else truth.camera if truth is not None else None
    if reference is not None:
        frames = min(len(reference), seen.num_frames)
        numbers.add("camera", lambda: _camera(seen.camera[:frames], reference[:frames]))
    if source is None or not tracks:  # nothing says where the speakers are
        return
    outside = {"outside": source.error_outside}
    if source.floor_error is not None:
        outside["floor"] = source.floor_error

    def compared() -> dict[str, float]:
        db = {name: follows.decibels(error) for name, error in outside.items()}
        floor = db.get("floor", floor_db)
        return {"outside_db": db["outside"]} | ({} if floor is None else {"outside_loss_db": floor - db["outside"]})

    numbers.add("what is outside the speakers", compared)


def _camera(found: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    return dict(zip(("camera_follow", "camera_error"), camera.camera_follow(found, reference), strict=True))


def _head(
    numbers: Numbers, tracks: Sequence[FaceTrack], originals: Sequence[FaceTrack], borders: Sequence[int]
) -> None:  # fmt: skip
    found: dict[str, list[float]] = {"pose_follow": [], "pose_copy": [], "head_follow": []}
    for track, original in zip(tracks, originals, strict=False):
        frames = min(len(track.size), len(original.size))
        a, b = (_position(each)[:frames] for each in (track, original))
        reference = follows.chunk_references(b, list(borders))
        both = np.isfinite(a).all(1) & np.isfinite(b).all(1) & np.isfinite(reference).all(1)
        if (known := int(both.sum())) < curves.LEAST_FRAMES:
            numbers.leave_out(f"head against its original: {known} frames with values, less than {curves.LEAST_FRAMES}")
            continue
        fit = follows.fit_pose(a[both], b[both], reference[both])
        found["pose_follow"].append(fit.source)
        found["pose_copy"].append(fit.reference)
        found["head_follow"].append(curves.correlation_of_all(a, b))
    numbers.values |= {name: _mean(values) for name, values in found.items()}


def _position(track: FaceTrack) -> Float[np.ndarray, "F 5"]:
    """Centre in units of half the head's height, and the pose in radians."""
    size = np.nanmedian(track.size) if np.isfinite(track.size).any() else np.nan
    return np.concatenate([track.center / size, track.pose], axis=1)


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN if there are none."""
    kept = [value for value in values if not np.isnan(value)]
    return float(np.mean(kept)) if kept else float("nan")
