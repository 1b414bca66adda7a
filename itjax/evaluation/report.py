"""How well videos of drawn people do what they should, as a table and JSON.

    python -m itjax.evaluation.report videos/ --truth drawn/truth --json report.json

Each NAME.mp4 is compared with truth/NAME.json, as `python -m itjax.synthetic` writes it: the lips with the phonemes' mouth,
by the colour of what lies between them and, with --landmarks, by a detector that knows nothing of the truth.
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
from itjax.errors import UserError
from itjax.evaluation import measures
from itjax.evaluation.landmarks import Detector
from itjax.evaluation.mouths import opening_by_color
from itjax.media.containers import FRAME_RATE
from itjax.media.pictures import VideoSource, open_source
from itjax.synthetic.face import darker
from itjax.terminal import run_command

# F frames · H W pixels

LEAST = 2 * FRAME_RATE  # frames: from when on the drift of colour has a slope

# name, what it says, and what it should be
ROWS = (
    ("sync", "mouth opening with the true one, by colour: correlation", "high"),
    ("lag", "frames by which it is late", "0"),
    ("landmark_sync", "the same by landmarks", "high"),
    ("landmark_lag", "frames by which it is late", "0"),
    ("faces_found", "share of frames in which the detector sees a face", "1"),
    ("silence", "opening in silence, as a share of that in speech", "0"),
    ("wrong_speaker", "movement of silent mouths, as a share of the speaker's", "0"),
    ("color_drift", "levels of 255 in 10 s", "that of the source"),
    ("seam", "steps into chunks, as a share of the usual", "below 2"),
)


class Measured(NamedTuple):
    """A video's numbers by name, and how far its colour has gone after each second."""

    name: str
    numbers: dict[str, float]
    colors: list[float]


def frames_of(path: Path) -> UInt8[np.ndarray, "F H W 3"]:
    """All frames of a video.

    Raises:
        UserError: where it cannot be read, or is a picture.
    """
    source = open_source(path)
    if not isinstance(source, VideoSource):
        raise UserError(f"{path} is a picture, not a video")
    frames = [source.frame(0)]
    while not source.at_end:
        frames.append(source.frame(len(frames)))
    return np.stack(frames)


def speaking(person: dict[str, Any], num_frames: int) -> Bool[np.ndarray, " F"]:
    """Frames in which something is said."""
    heard = np.zeros(num_frames, bool)
    for symbol, start, stop in person["phonemes"]:
        if symbol:
            heard[int(start * FRAME_RATE) : int(np.ceil(stop * FRAME_RATE))] = True
    return heard


def measure(
    name: str, frames: UInt8[np.ndarray, "F H W 3"], truth: dict[str, Any], borders: Sequence[int], detector: Detector | None
) -> Measured:  # fmt: skip
    """The numbers of a video of people whose truth is known; those that it does not have are left out.

    Raises:
        UserError: where it is no video of theirs, or shorter than two seconds.
    """
    count = min(len(frames), truth["num_frames"])
    if count < LEAST:
        raise UserError(f"{name}: {count} frames with a truth are too few: {LEAST} at least")
    if list(frames.shape[1:3]) != truth["size"]:
        raise UserError(f"{name}: the video is {frames.shape[1]}x{frames.shape[2]}, its truth {truth['size']}")
    frames, people = frames[:count], truth["people"]
    heard = np.stack([speaking(person, count) for person in people])
    numbers: dict[str, float] = {"color_drift": measures.color_drift(frames)}
    ways = {"": [_by_color(frames, person) for person in people]}
    if detector is not None:
        found = [_by_landmarks(frames, person, detector) for person in people]
        ways["landmark_"] = [opening for opening, _ in found]
        numbers["faces_found"] = float(np.mean([share for _, share in found]))
    for way, openings in ways.items():
        pairs = zip(openings, people, heard, strict=True)
        each = [measures.sync(found, np.asarray(of["mouth"]["jaw"])[:count]) for found, of, said in pairs if said.any()]
        if each:
            numbers[f"{way}sync"] = float(np.mean([one.correlation for one in each]))
            numbers[f"{way}lag"] = float(np.mean([one.best_lag for one in each]))
    by_color = np.stack(ways[""])
    numbers["silence"] = _mean([measures.open_in_silence(*pair) for pair in zip(by_color, heard, strict=True)])
    if len(people) > 1:
        numbers["wrong_speaker"] = measures.wrong_speaker(by_color, heard)
    if inside := [border for border in borders if border < count]:
        numbers["seam"] = float(np.mean(measures.seams(frames, inside)))
    there = {name: value for name, value in numbers.items() if not np.isnan(value)}
    return Measured(name, there, measures.color_curve(frames).tolist())


def _mean(values: Sequence[float]) -> float:
    """Of those that are numbers; NaN where none is."""
    kept = [value for value in values if not np.isnan(value)]
    return float(np.mean(kept)) if kept else float("nan")


def _by_color(frames: UInt8[np.ndarray, "F H W 3"], person: dict[str, Any]) -> Float[np.ndarray, " F"]:
    who = person["identity"]
    skin, lips, hair = (tuple(who[name]) for name in ("skin", "lips", "hair"))
    # shut lips have a line between them, which blends with them
    around = [*(darker(lips, by) for by in (0.0, 0.15, 0.3, 0.45)), *(darker(skin, by) for by in (0.0, 0.18, 0.35))]
    around.append(who["clothes"])
    if who["hair_style"] != "no" or who["beard"]:  # it may hang, or grow, where the mouth is
        around += [hair, darker(hair, 0.1), darker(hair, 0.25)]
    return opening_by_color(frames, person["seen"]["mouth_area"][: len(frames)], around)


def _by_landmarks(
    frames: UInt8[np.ndarray, "F H W 3"], person: dict[str, Any], detector: Detector
) -> tuple[Float[np.ndarray, " F"], float]:
    found = [detector(frame, head) for frame, head in zip(frames, person["seen"]["head_box"], strict=False)]
    return np.array([marks.opening for marks in found]), float(np.mean([marks.score > 0.5 for marks in found]))


def table(measured: Sequence[Measured]) -> str:
    """Means over the videos with 95 % confidence intervals, as Markdown."""
    lines = ["| measure | mean | 95 % | videos | should be | |", "| --- | --- | --- | --- | --- | --- |"]
    for name, value in estimates(measured).items():
        says, wanted = next((says, wanted) for row, says, wanted in ROWS if row == name)
        interval = f"{value.low:.3f} to {value.high:.3f}"
        lines.append(f"| {name} | {value.mean:.3f} | {interval} | {value.clips} | {wanted} | {says} |")
    return "\n".join(lines)


def estimates(measured: Sequence[Measured]) -> dict[str, measures.Estimate]:
    """By name, in the table's order; measures that no video has are left out."""
    found = {}
    for name, *_ in ROWS:
        values = [each.numbers[name] for each in measured if name in each.numbers]
        if values:
            found[name] = measures.estimate(values)
    return found


def main(arguments: list[str] | None = None, program: str = "python -m itjax.evaluation.report") -> int:
    """Exit status: 0 done, 2 something to put right, 3 the disk refused, 130 stopped."""
    args = _parser(program).parse_args(arguments)
    return run_command(program, lambda: report(args), "stopped")


def report(args: argparse.Namespace) -> None:
    """Prints the table, and writes all numbers where the flags ask for them."""
    measured = _measured(args)
    print(table(measured))
    if args.json:
        content = {
            "estimates": {name: value._asdict() for name, value in estimates(measured).items()},
            "videos": [each._asdict() for each in measured],
        }
        write_text(args.json, json.dumps(content, indent=1))


def _measured(args: argparse.Namespace) -> list[Measured]:
    chunks = Sampler(frame_num=args.frame_num, motion_frames=args.motion_frame) if args.frame_num else None
    detector = None if args.landmarks is None else Detector(args.landmarks)
    # a video's region (`itjax.preparation`) is none itself
    paths = sorted(path for path in args.videos.glob("*.mp4") if not path.name.endswith(".region.mp4"))
    if not paths:
        raise UserError(f"{args.videos}: there is no mp4 in this folder")
    measured = []
    for path in paths:
        truth = args.truth / f"{path.stem}.json"
        try:
            content = json.loads(truth.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{truth} cannot be read ({error}): each video needs the truth it was made from") from error
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
    parser.add_argument("videos", type=Path, metavar="VIDEOS", help="folder of NAME.mp4")
    parser.add_argument("--truth", type=Path, required=True, metavar="DIR", help="folder of NAME.json")
    parser.add_argument("--landmarks", type=Path, metavar="FILE", help="face_landmark.tflite of mediapipe 0.10.14")
    parser.add_argument("--frame_num", type=int, metavar="N", help="frames of a chunk, where the videos were made in chunks")
    parser.add_argument("--motion_frame", type=int, default=9, metavar="N", help="frames that chunks share (default 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
