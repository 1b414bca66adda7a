"""Converts a folder of videos to training records: `python -m itjax.preparation --help`."""

import argparse
import io
import math
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from itjax.config import Preset
from itjax.errors import UserError
from itjax.media.containers import FRAME_RATE
from itjax.parallel.sharding import make_mesh
from itjax.pipeline.process import default_dtype, keep_compiled_programs, memory_errors
from itjax.preparation.clips import MIN_AUDIBLE_FRACTION, SILENCE_DBFS, Limits
from itjax.preparation.prepare import prepare
from itjax.preparation.settings import Settings
from itjax.records import Layout
from itjax.terminal import Terminal, run_command
from itjax.weights.sources import open_converted

NAME = "itjax.preparation"
EPILOG = f"""Videos may have any format that FFmpeg reads, and may be in subfolders. Optional files next to NAME.mp4:
NAME.txt, its caption; NAME.region.mp4 or NAME.region.png, bright where training may weight the loss higher; for two
persons, NAME.1.wav and NAME.2.wav, their voices, and NAME.json, their positions: {{"bbox": {{"person1": [top, left, bottom,
right], "person2": [...]}}}} (default: the left and right half). Videos are read at {FRAME_RATE} frames per second, and no
clip extends across a cut. Clips that are too short, silent (less than {MIN_AUDIBLE_FRACTION:.0%} of the frames above
{SILENCE_DBFS:.0f} dBFS, after normalising the audio to -23 LUFS) or unreadable are skipped and listed with the reason in
OUT/skipped.jsonl. An interrupted run continues when it is started again with the same arguments."""


def main(argv: list[str] | None = None, program: str = f"python -m {NAME}") -> int:
    """Returns the exit status: 0 for success, 2 for a user error, 3 if a file cannot be written, 130 if interrupted.

    In every case, finished shards stay saved.
    """
    args = parser(program).parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # file names may contain bytes that are not valid text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    kept = "finished shards are kept"
    refused = f"{kept}: free some space and run the same command to continue"
    return run_command(program, lambda: make_dataset(args), f"stopped; {kept}, run the same command to continue", refused)


def make_dataset(args: argparse.Namespace) -> None:
    """Makes the dataset described by the flags.

    Raises:
        UserError: if a flag, the checkpoint or a folder is invalid, or no clip is usable.
    """
    if args.checkpoint is None:
        raise UserError(
            "no weights: specify --checkpoint DIR, a folder made from the official files by `python convert_weights.py "
            "--ckpt_dir DIR --wav2vec_dir DIR --infinitetalk_dir FILE --output DIR`"
        )
    weights = open_converted(args.checkpoint, [])
    settings = settings_of(args, weights.preset)
    keep_compiled_programs()
    # each device encodes its own chunks, so all devices are along the mesh's `data` axis
    with memory_errors("encoding videos", "a smaller --batch or --size"):
        prepare(args.folder, args.out, settings, weights, make_mesh(1, 1, heads=1), Terminal())


def parser(program: str) -> argparse.ArgumentParser:
    """The parser with all flags of the command."""
    p = argparse.ArgumentParser(
        program,
        description="Converts a folder of videos with audio (and captions) to training records.",
        epilog=EPILOG,
    )
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    seconds: dict[str, Any] = {"type": float, "metavar": "S"}
    p.add_argument("folder", type=Path, metavar="FOLDER", help="folder with the videos")
    p.add_argument("out", type=Path, metavar="OUT", help="output folder of the dataset")
    p.add_argument("--checkpoint", type=Path, metavar="DIR", help="folder made by convert_weights.py (required)")
    p.add_argument("--size", default="infinitetalk-480", help="table of video sizes; the aspect ratio is that of the source")
    p.add_argument("--frame_num", **number, default=81, help="frames per chunk, 4n+1 (default %(default)s)")
    p.add_argument("--chunk_stride", **number, default=40, help="frames between the starts of chunks (default %(default)s)")
    p.add_argument("--reference_stride", **number, default=20, help="frames between references (default %(default)s)")
    p.add_argument(
        "--min_seconds",
        **seconds,
        help="minimum length of a clip, at least a chunk (default: a chunk and a reference stride, for M3)",
    )
    p.add_argument(
        "--max_seconds",
        **seconds,
        default=20.0,
        help="maximum length of a clip (default %(default)s); longer scenes are split",
    )
    p.add_argument("--ends", action="store_true", help="also store the conditioning of strategy FL2V")
    p.add_argument("--batch", **number, default=1, help="chunks encoded at once on each device (default %(default)s)")
    p.add_argument(
        "--shard_mb",
        type=float,
        metavar="MB",
        default=256.0,
        help="approximate maximum size of a shard (default %(default)s)",
    )
    p.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="dtype of matrix products (default bfloat16, on CPU float32)"
    )
    return p


def settings_of(args: argparse.Namespace, preset: Preset) -> Settings:
    """The settings given by the flags.

    Raises:
        UserError: if a value is invalid.
    """
    if args.size not in preset.sizes:
        raise UserError(f"--size {args.size}: must be one of {', '.join(preset.sizes)} (preset {preset.name})")
    if args.batch < 1:
        raise UserError(f"--batch {args.batch}: must be at least 1")
    if not 0 < args.shard_mb < math.inf:
        raise UserError(f"--shard_mb {args.shard_mb:g}: must be above 0")
    layout = Layout(args.frame_num, args.reference_stride, args.chunk_stride, args.ends)
    chunk = layout.frame_num / FRAME_RATE
    # a clip of one chunk has no frame outside it: the default strategy of training skips it, after it was encoded
    usable = (layout.frame_num + layout.reference_stride) / FRAME_RATE
    shortest = max(chunk, min(usable, args.max_seconds)) if args.min_seconds is None else args.min_seconds
    if not 0 <= shortest < math.inf or not max(shortest, chunk) <= args.max_seconds < math.inf:
        raise UserError(
            f"--min_seconds {shortest:g} --max_seconds {args.max_seconds:g}: a clip contains at least one chunk of "
            f"{chunk:g} s (--frame_num {layout.frame_num}), so --max_seconds must be at least that and --min_seconds"
        )
    limits = Limits(
        max(layout.frame_num, math.ceil(shortest * FRAME_RATE - 1e-6)), math.floor(args.max_seconds * FRAME_RATE + 1e-6)
    )
    dtype = args.dtype or default_dtype()
    return Settings(layout, args.size, limits, args.batch, round(args.shard_mb * 1e6), jnp.dtype(dtype))


if __name__ == "__main__":
    sys.exit(main())
