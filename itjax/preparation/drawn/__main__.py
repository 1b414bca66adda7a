"""Makes training records of drawn people (itjax.synthetic) without video files.

    python -m itjax.preparation.drawn dataset/ --checkpoint weights/itjax --clips 1000 --two_person_clips 200

The clips are those that `python -m itjax.synthetic` writes with the same seed and sizes, but without the losses of a video
file: the picture sizes are those of the preset's table for a square and for twice that width. Clips are drawn by as many
processes as the machine has cores. An interrupted run continues when it is started again with the same arguments.
"""

import argparse
import sys
from pathlib import Path

from itjax.errors import UserError
from itjax.flag_types import not_negative, positive
from itjax.media.containers import FRAME_RATE
from itjax.terminal import Terminal, run_command


def main(argv: list[str] | None = None, program: str = "python -m itjax.preparation.drawn") -> int:
    """Returns the exit status: 0 for success, 2 for a user error, 3 if a file cannot be written, 130 if interrupted."""
    args = _parser(program).parse_args(argv)
    kept = "finished shards are kept; run the same command to continue"
    return run_command(program, lambda: make_dataset(args), f"stopped; {kept}", kept)


def make_dataset(args: argparse.Namespace) -> None:
    """Makes the dataset described by the flags.

    Raises:
        UserError: If a flag or the checkpoint is invalid.
    """
    # here: the processes that draw import this module, too, and do without JAX
    import jax
    import jax.numpy as jnp

    from itjax.parallel.sharding import make_mesh
    from itjax.pipeline.process import default_dtype, keep_compiled_programs, memory_errors
    from itjax.preparation.clips import Limits
    from itjax.preparation.drawn.clips import drawn_clips
    from itjax.preparation.drawn.prepare import prepare_drawn
    from itjax.preparation.settings import Settings
    from itjax.records import Layout
    from itjax.weights.sources import open_converted

    weights = open_converted(args.checkpoint, [])
    sizes, layout = weights.preset.sizes, Layout(args.frame_num, args.reference_stride, args.chunk_stride)
    if args.size not in sizes:
        raise UserError(f"--size {args.size}: must be one of {', '.join(sizes)} (preset {weights.preset.name})")
    frames = round(args.seconds * FRAME_RATE)
    if frames < layout.frame_num:
        raise UserError(f"--seconds {args.seconds:g}: shorter than a chunk of --frame_num {layout.frame_num}")
    dtype = jnp.dtype(default_dtype())
    # a clip's chunks and references are encoded in batches of their own, and a CPU pays for the padding of the last ones
    batch = args.batch or (1 if jax.default_backend() == "cpu" else 8)
    settings = Settings(layout, args.size, Limits(frames, frames), batch, round(args.shard_mb * 1e6), dtype)
    counts = {1: args.clips, 2: args.two_person_clips}
    chosen = drawn_clips(sizes[args.size].table, args.seed, args.seconds, counts)
    if not chosen:
        raise UserError("--clips 0 --two_person_clips 0: nothing to draw")
    keep_compiled_programs()
    with memory_errors("encoding clips", "a smaller --batch"):
        prepare_drawn(args.out, chosen, settings, weights, make_mesh(1, 1, heads=1), Terminal())


def _parser(program: str) -> argparse.ArgumentParser:
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        program, description=description, epilog=more, formatter_class=argparse.RawTextHelpFormatter
    )
    number = lambda flag, default, text: parser.add_argument(
        flag, type=not_negative, default=default, metavar="N", help=f"{text} (default %(default)s)"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of the dataset")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="folder with the encoders' weights")
    number("--clips", 1000, "clips of one person")
    number("--two_person_clips", 0, "clips of two persons")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="length of a clip (default %(default)s)")
    number("--seed", 0, "random seed")
    parser.add_argument("--size", default="infinitetalk-480", help="table of picture sizes (default %(default)s)")
    number("--frame_num", 81, "frames per chunk, 4n+1")
    number("--chunk_stride", 40, "frames between the starts of chunks")
    number("--reference_stride", 20, "frames between references")
    parser.add_argument(
        "--batch", type=positive, metavar="N", help="chunks encoded at once on each device (default 8, on CPU 1)"
    )
    parser.add_argument("--shard_mb", type=float, default=256.0, metavar="MB", help="largest size of a shard")
    return parser


if __name__ == "__main__":
    sys.exit(main())
