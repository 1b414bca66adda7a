"""Trains a small VAE on drawn talking faces, first on single pictures, then on clips.

    python -m itjax.training.vae --out runs/vae --steps 6000

A run that was interrupted continues with the same command. OUT/metrics.jsonl holds losses and figures; after the last step,
OUT/result holds the weights, card.json with the figures on people kept out of training, and a picture of originals above
reconstructions.
"""

import argparse
import sys
from pathlib import Path

from itjax.config import VaeSizes
from itjax.pipeline.process import keep_compiled_programs
from itjax.terminal import Terminal, run_command
from itjax.training.run import STATUS
from itjax.training.small_loop import Plan
from itjax.training.vae.objective import Recipe
from itjax.training.vae.train import Training, train


def main(arguments: list[str] | None = None, program: str = "python -m itjax.training.vae") -> int:
    """Returns the exit status.

    0 for success, 2 for a user error, 3 if a file cannot be written, 75 if steps are left to do after SIGTERM or at the end
    of the minutes, 130 if interrupted.
    """
    args = _parser(program).parse_args(arguments)
    return run_command(program, lambda: start(args), "stopped; run the same command again to continue")


def start(args: argparse.Namespace) -> int:
    """Trains as the flags say; returns the exit status.

    Raises:
        UserError: As `train`.
    """
    keep_compiled_programs()
    recipe = Recipe(steps=args.steps, image_steps=min(args.image_steps, args.steps))
    sizes = VaeSizes(dim=args.dim, num_res_blocks=1)
    return STATUS[train(Training(recipe, sizes, args.size, args.seed), Plan(args.out, args.steps, args.minutes), Terminal())]


def _parser(program: str) -> argparse.ArgumentParser:
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        program, description=description, epilog=more, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--steps", type=_positive, default=6000, metavar="N", help="steps in total (default %(default)s)")
    parser.add_argument(
        "--image_steps", type=int, default=Recipe.image_steps, metavar="N",
        help="the first of them, on single pictures (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="end after so many minutes; the same command continues (default: no limit)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default %(default)s)")
    parser.add_argument("--size", type=int, default=64, metavar="PIXELS", help="height and width (default %(default)s)")
    parser.add_argument("--dim", type=int, default=8, help="channels of the first level, at least 8 (default %(default)s)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
