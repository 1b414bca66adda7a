"""Generates videos of drawn people who talk, with ground truth.

    python -m itjax.synthetic drawn/ --clips 20 --seconds 10
    python -m itjax.preparation drawn/videos dataset/ --checkpoint weights/itjax

OUT/videos holds the input of `itjax.preparation`: NAME.mp4 with its sound, NAME.txt with its prompt, NAME.region.mp4 with
the mouths in white (where training may weight the loss higher), and for two persons their voices and boxes.
OUT/truth/NAME.json holds the ground truth: words, phonemes and their times, mouth shape and position in each frame, motion
of head and camera. The same flags give the same clips. Existing clips are kept.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import UInt8

from itjax.disk import atomic_path, output_errors, write_text
from itjax.errors import UserError
from itjax.flag_types import not_negative, positive, whole
from itjax.input_files import read_json
from itjax.media.companions import BOXES_SUFFIX, CAPTION_SUFFIX, REGION_VIDEO_SUFFIX, VOICE_SUFFIXES
from itjax.media.containers import FRAME_RATE, SAMPLE_RATE
from itjax.media.video_file import write_video
from itjax.synthetic import clip as clips
from itjax.synthetic.clip import Clip
from itjax.synthetic.face import FacePositions
from itjax.synthetic.source import person_boxes
from itjax.synthetic.splits import SPLITS
from itjax.terminal import run_command

SHORTEST, LONGEST = 1 / FRAME_RATE, 3600.0  # seconds of a clip, whose frames are in memory


def main(arguments: list[str] | None = None, program: str = "python -m itjax.synthetic") -> int:
    """Returns the exit status: 0 for success, 2 for a user error, 3 if a file cannot be written, 130 if interrupted."""
    args = _parser(program).parse_args(arguments)
    return run_command(program, lambda: draw(args), "stopped; run the same command again to continue")


def draw(args: argparse.Namespace) -> None:
    """Writes the missing clips, and prints the speed in frames per second."""
    height, width = args.size * 2 if len(args.size) == 1 else args.size
    written, drawing, began = 0, 0.0, time.monotonic()
    for number in range(args.clips):
        name = f"{'drawn' if args.split == 'train' else args.split}{args.seed:04d}-{number:05d}"
        if (kept := args.out / "truth" / f"{name}.json").is_file():
            _check_same(kept, round(args.seconds * FRAME_RATE), [height, width], args.persons)
        else:
            clip = clips.make((args.seed, number), args.seconds, height, width, args.persons, args.split)
            at = time.process_time()
            drawn = list(clips.frames(clip))
            drawing += time.process_time() - at
            write(clip, drawn, args.out, name)
            written += clip.num_frames
    seconds = time.monotonic() - began
    speed = f" ({written / seconds:.0f} frames/s; drawn at {written / drawing:.0f} frames/s a core)" if written else ""
    print(f"{args.out}: {args.clips} clips, {written} frames written in {seconds:.1f} s{speed}")


def _check_same(path: Path, num_frames: int, size: list[int], persons: int) -> None:
    """Refuses to keep a clip of other flags: the folder would hold other clips than the command asks for."""
    content = read_json(path)
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list):
        raise UserError(f"{path}: it is not the ground truth of a clip. Give another folder, or remove it.")
    was = content.get("num_frames"), content.get("size"), len(people)
    if was != (num_frames, size, persons):
        raise UserError(
            f"{path}: this clip was drawn with another --seconds, --size or --persons. Give another folder, or remove it."
        )


def _parser(program: str) -> argparse.ArgumentParser:
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        program, description=description, epilog=more, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder, created if it does not exist")
    parser.add_argument("--clips", type=positive, default=10, metavar="N", help="number of clips (default %(default)s)")
    parser.add_argument(
        "--seconds", type=_seconds, default=10.0, metavar="S", help="length of each clip (default %(default)s)"
    )
    parser.add_argument(
        "--size", type=_even, nargs="+", action=_Size, default=(128,), metavar="PIXELS",
        help="height and width, or one number for a square (default 128)",
    )  # fmt: skip
    parser.add_argument("--persons", type=int, choices=(1, 2), default=1, help="number of persons, side by side (default 1)")
    parser.add_argument("--seed", type=not_negative, default=0, help="random seed (default %(default)s)")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="train",
        help="the splits share no person, voice or sentence (default %(default)s)",
    )
    return parser


class _Size(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        if len(values) > 2:
            parser.error(f"--size takes one or two numbers, not {len(values)}")
        setattr(namespace, self.dest, tuple(values))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: must be a number of seconds") from error
    if not SHORTEST <= value <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text}: must be from {SHORTEST} (one frame) to {LONGEST:.0f} seconds")
    return value


def _even(text: str) -> int:
    value = whole(text)
    if value < 16 or value % 2:
        raise argparse.ArgumentTypeError(f"{text}: must be an even number of pixels, at least 16")
    return value


def write(clip: Clip, drawn: Sequence[tuple[np.ndarray, tuple[FacePositions, ...]]], out: Path, name: str) -> None:
    """Writes a clip's files, the ground truth last: if it exists, the others are complete.

    `drawn`: the clip's frames with the positions of the faces.

    Raises:
        OutputError: If a file cannot be written.
    """
    seen = [places for _, places in drawn]
    videos, truth = out / "videos", out / "truth"
    for folder in (videos, truth):
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    write_video(videos / f"{name}.mp4", np.stack([picture for picture, _ in drawn]), clip.sound)
    write_video(videos / f"{name}{REGION_VIDEO_SUFFIX}", regions(seen, clip.height, clip.width), None)
    write_text(videos / f"{name}{CAPTION_SUFFIX}", clip.scene.prompt + "\n")
    if len(clip.spoken) == 2:
        for suffix, spoken in zip(VOICE_SUFFIXES, clip.spoken, strict=True):
            path = videos / f"{name}{suffix}"
            with atomic_path(path) as temporary, output_errors(path):
                soundfile.write(temporary, spoken.speech.samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        heads = np.array([[people[number].head_box for people in seen] for number in range(2)])
        found = person_boxes(heads, clip.height, clip.width)
        boxes = {f"person{number + 1}": box for number, box in enumerate(found)}
        write_text(videos / f"{name}{BOXES_SUFFIX}", json.dumps({"bbox": boxes}))
    write_text(truth / f"{name}.json", json.dumps(clips.truth(clip, seen), ensure_ascii=False))


def regions(seen: list[tuple[FacePositions, ...]], height: int, width: int) -> UInt8[np.ndarray, "F H W 3"]:
    """Frames that are white where a mouth may be, black elsewhere."""
    pixels = np.zeros((len(seen), height, width, 3), np.uint8)
    for frame, people in zip(pixels, seen, strict=True):
        for person in people:
            left, top, right, bottom = person.mouth_area
            frame[max(0, int(top)) : max(0, int(bottom) + 1), max(0, int(left)) : max(0, int(right) + 1)] = 255
    return pixels


if __name__ == "__main__":
    sys.exit(main())
