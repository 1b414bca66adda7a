"""Trains a small VAE on drawn talking faces, first on single pictures, then on clips.

    python -m itjax.training.vae --out runs/vae --steps 6000

A run that was interrupted continues with the same command. OUT/metrics.jsonl holds losses and figures; after the last step,
OUT/result holds the weights, card.json with the figures on people kept out of training, and a picture of originals above
reconstructions.
"""

import argparse
import sys
from typing import cast, get_args

from itjax.config import VaeSizes
from itjax.flag_types import not_negative, positive
from itjax.terminal import Terminal
from itjax.training import small_command
from itjax.training.vae.recipe import DType, Recipe

MEASURE_EVERY = 1000  # steps


def main(arguments: list[str] | None = None, program: str = "python -m itjax.training.vae") -> int:
    """Returns the exit status, as `small_command.run`."""
    args = _parser(program).parse_args(arguments)
    return small_command.run(program, lambda: start(args))


def start(args: argparse.Namespace) -> int:
    """Trains as the flags say; returns the exit status.

    Raises:
        UserError: As `train`.
    """
    # here: the processes that draw import this module, too, and do without JAX
    from itjax.pipeline.process import default_dtype, keep_compiled_programs
    from itjax.training.run import STATUS
    from itjax.training.small_loop import Plan
    from itjax.training.vae.train import Training, train

    keep_compiled_programs()
    dtype: DType = args.dtype or cast(DType, default_dtype())
    recipe = Recipe(
        args.steps, min(args.image_steps, args.steps), args.images, args.clips, args.clip_frames,
        learning_rate=args.learning_rate, dtype=dtype,
    )  # fmt: skip
    training = Training(recipe, VaeSizes(dim=args.dim, num_res_blocks=1), args.size, args.seed)
    return STATUS[train(training, Plan(args.out, args.steps, args.minutes, measure_every=MEASURE_EVERY), Terminal())]


def _parser(program: str) -> argparse.ArgumentParser:
    parser = small_command.parser(program, __doc__)
    add = lambda name, kind, default, text, **more: parser.add_argument(
        name, type=kind, default=default, help=f"{text} (default {default})", **more
    )
    add("--steps", positive, 6000, "steps in total", metavar="N")
    add("--image_steps", not_negative, Recipe.image_steps, "the first of them, on single pictures", metavar="N")
    add("--images", positive, Recipe.images, "pictures per step", metavar="N")
    add("--clips", positive, Recipe.clips, "clips per step after that", metavar="N")
    add("--clip_frames", positive, Recipe.clip_frames, "frames of each clip, 4n+1", metavar="N")
    add("--learning_rate", float, Recipe.learning_rate, "of pictures, and highest of clips", metavar="RATE")
    parser.add_argument(
        "--dtype", choices=get_args(DType), help="of convolutions in training (default: bfloat16, on CPU float32)"
    )
    add("--size", int, 64, "height and width", metavar="PIXELS")
    add("--dim", int, 8, "channels of the first level, at least 8")
    return parser


if __name__ == "__main__":
    sys.exit(main())
