"""Trains a small VAE on drawn talking faces, first on single pictures, then on clips.

    python -m itjax.training.vae --out runs/vae --steps 6000

A run that was interrupted continues with the same command. OUT/metrics.jsonl holds losses and figures; after the last step,
OUT/result holds the weights, card.json with the figures on people kept out of training, and a picture of originals above
reconstructions.

With --start a trained VAE is refined: what it has decoded changes less when encoded and decoded again, as the streaming
loop does with the context of each chunk. Its latents stay the same, so that a DiT which was trained on them stays right:

    python -m itjax.training.vae --out runs/refined --start runs/vae --seed 1
"""

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import cast, get_args

from itjax.config import VaeSizes
from itjax.errors import UserError
from itjax.flag_types import positive, whole
from itjax.terminal import Terminal
from itjax.training import small_command
from itjax.training.vae.recipe import RECIPE, REFINEMENT, DType, Recipe

MEASURE_EVERY = 1000  # steps
DIM = 8


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
    from itjax.training.vae.start import stored_parameters
    from itjax.training.vae.train import Training, train

    keep_compiled_programs()
    dtype: DType = args.dtype or cast(DType, default_dtype())
    given = {field.name: value for field in fields(Recipe) if (value := getattr(args, field.name, None)) is not None}
    recipe = replace(REFINEMENT if args.start else RECIPE, **given | {"dtype": dtype})
    recipe = replace(recipe, image_steps=min(recipe.image_steps, recipe.steps))
    if args.start and args.dim is not None:
        raise UserError("--dim: the network of --start has its own: leave it out")
    known = stored_parameters(args.start) if args.start else None
    sizes = known.sizes if known else VaeSizes(dim=DIM if args.dim is None else args.dim, num_res_blocks=1)
    training = Training(recipe, sizes, args.size, args.seed, known.identity if known else None)
    plan = Plan(args.out, recipe.steps, args.minutes, measure_every=MEASURE_EVERY)
    return STATUS[train(training, plan, Terminal(), known.parameters if known else None)]


def _parser(program: str) -> argparse.ArgumentParser:
    parser = small_command.parser(program, __doc__)
    numbers = (
        ("steps", positive, "steps in total"),
        ("image_steps", whole, "the first of them, on single pictures"),
        ("images", positive, "pictures per step"),
        ("clips", positive, "clips per step after that"),
        ("clip_frames", positive, "frames of each clip, 4n+1"),
        ("learning_rate", float, "of pictures, and highest of clips"),
    )
    for name, kind, text in numbers:
        usual, refining = getattr(RECIPE, name), getattr(REFINEMENT, name)
        default = f"default {usual}" + (f", with --start {refining}" if refining != usual else "")
        metavar = "RATE" if kind is float else "N"
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=f"{text} ({default})")
    parser.add_argument(
        "--dtype", choices=get_args(DType), help="of convolutions in training (default: bfloat16, on CPU float32)"
    )
    parser.add_argument("--size", type=whole, default=64, metavar="N", help="height and width in pixels (default 64)")
    parser.add_argument("--dim", type=whole, metavar="N", help=f"channels of the first level, at least 8 (default {DIM})")
    parser.add_argument(
        "--start", type=Path, metavar="DIR", help="refine the VAE of this run, or of a checkpoint, and keep its latents"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
