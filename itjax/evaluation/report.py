"""Evaluates videos of drawn people against their ground truth, as a table and JSON.

    python -m itjax.evaluation.report videos/ --truth drawn/truth --json report.json

Each NAME.mp4 is compared with truth/NAME.json, as written by `python -m itjax.synthetic`: the mouth opening with the true
one, by the colour between the lips and, with --landmarks, by a detector independent of the ground truth.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from itjax.config import Sampler
from itjax.disk import write_text
from itjax.errors import UserError, flag_names
from itjax.evaluation import measures
from itjax.evaluation.landmarks import Detector
from itjax.evaluation.mouths import opening_by_color
from itjax.input_files import read_json
from itjax.media.companions import REGION_VIDEO_SUFFIX
from itjax.media.containers import FRAME_RATE
from itjax.media.pictures import VideoSource, open_source
from itjax.synthetic.face import darken
from itjax.terminal import run_command

# F frames · H W pixels

MIN_FRAMES = 2 * FRAME_RATE  # frames: the minimum for the slope of the colour drift

# name, description, and desired value
METRICS = (
    ("sync", "correlation of the mouth opening (by colour) with the true one", "high"),
    ("lag", "frames by which the mouth is late", "0"),
    ("landmark_sync", "the same, by landmarks", "high"),
    ("landmark_lag", "frames by which the mouth is late, by landmarks", "0"),
    ("faces_found", "fraction of frames in which the detector finds a face", "1"),
    ("silence", "opening in silence as a fraction of that in speech", "0"),
    ("wrong_speaker", "movement of silent mouths as a fraction of the speaker's", "0"),
    ("color_drift", "change of the mean colour per 10 s, levels of 255", "as in the source"),
    ("seam", "change at chunk borders as a multiple of the usual change", "below 2"),
)


class VideoMetrics(NamedTuple):
    """A video's metrics by name, and the distance of its mean colour from the first second's, per second."""

    name: str
    numbers: dict[str, float]
    colors: list[float]


def frames_of(path: Path) -> UInt8[np.ndarray, "F H W 3"]:
    """All frames of a video.

    Raises:
        UserError: If it cannot be read or is a picture.
    """
    source = open_source(path)
    if not isinstance(source, VideoSource):
        raise UserError(f"{path} is a picture, not a video")
    frames = [source.frame(0)]
    while not source.at_end:
        frames.append(source.frame(len(frames)))
    return np.stack(frames)


def speaking(person: dict[str, Any], num_frames: int) -> Bool[np.ndarray, " F"]:
    """Frames in which the person speaks."""
    spoken = np.zeros(num_frames, bool)
    for symbol, start, stop in person["phonemes"]:
        if symbol:
            spoken[int(start * FRAME_RATE) : int(np.ceil(stop * FRAME_RATE))] = True
    return spoken


def measure(
    name: str, frames: UInt8[np.ndarray, "F H W 3"], truth: dict[str, Any], borders: Sequence[int], detector: Detector | None
) -> VideoMetrics:  # fmt: skip
    """The metrics of a video with known ground truth; those that do not apply are omitted.

    Raises:
        UserError: If the video does not fit the ground truth or is shorter than two seconds.
    """
    count = min(len(frames), truth["num_frames"])
    if count < MIN_FRAMES:
        raise UserError(f"{name}: {count} frames with ground truth are too few: at least {MIN_FRAMES} are needed")
    if list(frames.shape[1:3]) != truth["size"]:
        raise UserError(f"{name}: the video is {frames.shape[1]}x{frames.shape[2]}, its ground truth {truth['size']}")
    frames, people = frames[:count], truth["people"]
    speech = np.stack([speaking(person, count) for person in people])
    numbers: dict[str, float] = {"color_drift": measures.color_drift(frames)}
    openings_by_prefix = {"": [_by_color(frames, person) for person in people]}
    if detector is not None:
        detected = [_by_landmarks(frames, person, detector) for person in people]
        openings_by_prefix["landmark_"] = [opening for opening, _ in detected]
        numbers["faces_found"] = float(np.mean([share for _, share in detected]))
    for prefix, openings in openings_by_prefix.items():
        pairs = zip(openings, people, speech, strict=True)
        syncs = [
            measures.sync(track, np.asarray(person["mouth"]["jaw"])[:count])
            for track, person, spoken in pairs
            if spoken.any()
        ]
        if syncs:
            numbers[f"{prefix}sync"] = float(np.mean([result.correlation for result in syncs]))
            numbers[f"{prefix}lag"] = float(np.mean([result.best_lag for result in syncs]))
    by_color = np.stack(openings_by_prefix[""])
    numbers["silence"] = _mean([measures.open_in_silence(*pair) for pair in zip(by_color, speech, strict=True)])
    if len(people) > 1:
        numbers["wrong_speaker"] = measures.wrong_speaker(by_color, speech)
    if inside := [border for border in borders if border < count]:
        numbers["seam"] = float(np.mean(measures.seams(frames, inside)))
    finite = {name: value for name, value in numbers.items() if not np.isnan(value)}
    return VideoMetrics(name, finite, measures.color_curve(frames).tolist())


def _mean(values: Sequence[float]) -> float:
    """The mean of the values that are not NaN; NaN if there are none."""
    kept = [value for value in values if not np.isnan(value)]
    return float(np.mean(kept)) if kept else float("nan")


def _by_color(frames: UInt8[np.ndarray, "F H W 3"], person: dict[str, Any]) -> Float[np.ndarray, " F"]:
    identity = person["identity"]
    skin, lips, hair = (tuple(identity[name]) for name in ("skin", "lips", "hair"))
    # closed lips have a dark line between them, which blends with their colour
    around = [*(darken(lips, by) for by in (0.0, 0.15, 0.3, 0.45)), *(darken(skin, by) for by in (0.0, 0.18, 0.35))]
    around.append(identity["clothes"])
    if identity["hair_style"] != "no" or identity["beard"]:  # hair or beard may cover the mouth area
        around += [hair, darken(hair, 0.1), darken(hair, 0.25)]
    return opening_by_color(frames, person["seen"]["mouth_area"][: len(frames)], around)


def _by_landmarks(
    frames: UInt8[np.ndarray, "F H W 3"], person: dict[str, Any], detector: Detector
) -> tuple[Float[np.ndarray, " F"], float]:
    landmarks = [detector(frame, head) for frame, head in zip(frames, person["seen"]["head_box"], strict=False)]
    return np.array([marks.opening for marks in landmarks]), float(np.mean([marks.score > 0.5 for marks in landmarks]))


def table(measured: Sequence[VideoMetrics]) -> str:
    """A Markdown table of means over the videos with 95 % confidence intervals."""
    lines = ["| measure | mean | 95 % | videos | should be | |", "| --- | --- | --- | --- | --- | --- |"]
    for name, value in estimates(measured).items():
        description, desired = next((text, value) for row, text, value in METRICS if row == name)
        interval = f"{value.low:.3f} to {value.high:.3f}"
        lines.append(f"| {name} | {value.mean:.3f} | {interval} | {value.clips} | {desired} | {description} |")
    return "\n".join(lines)


def estimates(measured: Sequence[VideoMetrics]) -> dict[str, measures.Estimate]:
    """Estimates by metric, in the table's order; metrics that no video has are omitted."""
    by_name = {}
    for name, *_ in METRICS:
        values = [each.numbers[name] for each in measured if name in each.numbers]
        if values:
            by_name[name] = measures.estimate(values)
    return by_name


def main(arguments: list[str] | None = None, program: str = "python -m itjax.evaluation.report") -> int:
    """Returns the exit status: 0 for success, 2 for a user error, 3 if a file cannot be written, 130 if interrupted."""
    args = _parser(program).parse_args(arguments)
    return run_command(program, lambda: report(args), "stopped")


def report(args: argparse.Namespace) -> None:
    """Prints the table, and writes all values to a file if the flags name one."""
    measured = _measured(args)
    print(table(measured))
    if args.json:
        content = {
            "estimates": {name: value._asdict() for name, value in estimates(measured).items()},
            "videos": [each._asdict() for each in measured],
        }
        write_text(args.json, json.dumps(content, indent=1))


def _measured(args: argparse.Namespace) -> list[VideoMetrics]:
    with flag_names({"frame_num": "--frame_num", "motion_frames": "--motion_frame"}):
        chunks = Sampler(frame_num=args.frame_num, motion_frames=args.motion_frame) if args.frame_num else None
    detector = None if args.landmarks is None else Detector(args.landmarks)
    # region files are not videos to evaluate
    paths = sorted(path for path in args.videos.glob("*.mp4") if not path.name.endswith(REGION_VIDEO_SUFFIX))
    if not paths:
        raise UserError(f"{args.videos}: no mp4 in this folder")
    measured = []
    for path in paths:
        truth = args.truth / f"{path.stem}.json"
        try:
            content = read_json(truth)
        except UserError as error:
            raise UserError(f"{truth} cannot be read ({error}): each video needs its ground truth") from error
        frames = frames_of(path)
        borders = range(chunks.frame_num, len(frames), chunks.new_frames) if chunks else ()
        measured.append(measure(path.stem, frames, content, borders, detector))
    return measured


def _parser(program: str) -> argparse.ArgumentParser:
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        program, description=description, epilog=more,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument("videos", type=Path, metavar="VIDEOS", help="folder with NAME.mp4")
    parser.add_argument("--truth", type=Path, required=True, metavar="DIR", help="folder with NAME.json")
    parser.add_argument("--landmarks", type=Path, metavar="FILE", help="face_landmark.tflite from mediapipe 0.10.14")
    parser.add_argument("--frame_num", type=int, metavar="N", help="frames per chunk, if the videos were made in chunks")
    parser.add_argument(
        "--motion_frame", type=int, default=9, metavar="N", help="frames that consecutive chunks share (default 9)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all values to FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
