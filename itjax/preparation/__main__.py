"""Makes training records of a folder of videos: `python -m itjax.preparation --help`."""

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
from itjax.pipeline.process import default_dtype, keep_compiled_programs
from itjax.preparation.clips import LEAST_HEARD, SILENCE, Limits
from itjax.preparation.prepare import Settings, prepare
from itjax.records import Layout
from itjax.terminal import Terminal, run_command
from itjax.weights.sources import open_converted

NAME = "itjax.preparation"
EPILOG = f"""Beside a video NAME.mp4 (any format that FFmpeg reads, in any folder below) may lie NAME.txt, its caption,
and for two persons NAME.1.wav and NAME.2.wav, their voices, and NAME.json, where they are: {{"bbox": {{"person1": [top,
left, bottom, right], "person2": [...]}}}} (without it, the halves of the picture). Pictures are taken at {FRAME_RATE} a
second; no clip goes across a cut. Clips that are too short, silent (less than {LEAST_HEARD:.0%} of the frames above
{SILENCE:.0f} dBFS, the whole sound being at -23 LUFS) or unreadable are left out and listed, with the reason, in
OUT/skipped.jsonl. Stopped and started again with the same arguments, it goes on."""


def main(argv: list[str] | None = None, program: str = f"python -m {NAME}") -> int:
    """Exit status: 0 done, 2 something to put right, 3 the disk refused (what was finished is kept), 130 stopped."""
    args = parser(program).parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # names of files may hold bytes that are no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    kept = "finished shards are kept"
    refused = f"{kept}: make room and start again to go on"
    return run_command(program, lambda: make_dataset(args), f"stopped; {kept}, start again to go on", refused)


def make_dataset(args: argparse.Namespace) -> None:
    """The dataset that the flags ask for.

    Raises:
        UserError: where they do not fit together, or anything is not as it must be.
    """
    if args.checkpoint is None:
        raise UserError(
            "no weights: give --checkpoint DIR, a folder made from the official files by `python convert_weights.py "
            "--ckpt_dir DIR --wav2vec_dir DIR --infinitetalk_dir FILE --output DIR`"
        )
    weights = open_converted(args.checkpoint, [])
    settings = settings_of(args, weights.preset)
    keep_compiled_programs()
    # every device encodes chunks of its own: all of them along the mesh's `data`
    prepare(args.folder, args.out, settings, weights, make_mesh(1, 1, heads=1), Terminal())


def parser(program: str) -> argparse.ArgumentParser:
    """All flags of the command."""
    p = argparse.ArgumentParser(
        program,
        description="A folder of videos with sound (and captions) becomes training records.",
        epilog=EPILOG,
    )
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    seconds: dict[str, Any] = {"type": float, "metavar": "S"}
    p.add_argument("folder", type=Path, metavar="FOLDER", help="where the videos are")
    p.add_argument("out", type=Path, metavar="OUT", help="folder for the dataset")
    p.add_argument("--checkpoint", type=Path, metavar="DIR", help="folder made by convert_weights.py (needed)")
    p.add_argument("--size", default="infinitetalk-480", help="table of picture sizes; the shape follows the video's")
    p.add_argument("--frame_num", **number, default=81, help="frames a chunk, 4n+1 (%(default)s)")
    p.add_argument("--chunk_stride", **number, default=40, help="frames from chunk to chunk (%(default)s)")
    p.add_argument("--reference_stride", **number, default=20, help="frames from reference to reference (%(default)s)")
    p.add_argument("--min_seconds", **seconds, help="of a clip; the default, and the least, is one chunk")
    p.add_argument("--max_seconds", **seconds, default=20.0, help="of a clip (%(default)s); longer scenes are split")
    p.add_argument("--ends", action="store_true", help="also keep what the strategy fl2v is shown")
    p.add_argument("--batch", **number, default=1, help="chunks encoded at once on each device (%(default)s)")
    p.add_argument("--shard_mb", type=float, metavar="MB", default=256.0, help="size of a shard (%(default)s)")
    p.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16, on CPU float32")
    return p


def settings_of(args: argparse.Namespace, preset: Preset) -> Settings:
    """The settings that the flags ask for.

    Raises:
        UserError: for values that make no sense.
    """
    if args.size not in preset.sizes:
        raise UserError(f"--size {args.size}: {preset.name} has {', '.join(preset.sizes)}")
    if args.batch < 1:
        raise UserError(f"--batch {args.batch}: at least 1")
    if not 0 < args.shard_mb < math.inf:
        raise UserError(f"--shard_mb {args.shard_mb:g}: must be above 0")
    layout = Layout(args.frame_num, args.reference_stride, args.chunk_stride, args.ends)
    chunk = layout.frame_num / FRAME_RATE
    shortest = chunk if args.min_seconds is None else args.min_seconds
    if not 0 <= shortest < math.inf or not max(shortest, chunk) <= args.max_seconds < math.inf:
        raise UserError(
            f"--min_seconds {shortest:g} --max_seconds {args.max_seconds:g}: a clip holds a chunk of {chunk:g} s at least "
            f"(--frame_num {layout.frame_num}), so --max_seconds must be at least that, and not below --min_seconds"
        )
    limits = Limits(
        max(layout.frame_num, math.ceil(shortest * FRAME_RATE)), math.floor(args.max_seconds * FRAME_RATE + 1e-6)
    )
    dtype = args.dtype or default_dtype()
    return Settings(layout, args.size, limits, args.batch, round(args.shard_mb * 1e6), jnp.dtype(dtype))


if __name__ == "__main__":
    sys.exit(main())
