"""Trains the small picture and text encoders together on drawn stills and their prompts.

    python -m itjax.training.contrastive --out runs/encoders

A run that was interrupted continues with the same command. OUT/metrics.jsonl holds losses and figures; after the last step,
OUT/result holds the weights, the tokenizer, and card.json with the figures on people kept out of training.
"""

import argparse
import sys
from pathlib import Path

from itjax.pipeline.process import keep_compiled_programs
from itjax.terminal import Terminal, run_command
from itjax.training.contrastive.settings import ContrastiveTraining
from itjax.training.contrastive.train import train
from itjax.training.run import STATUS
from itjax.training.small_loop import Plan


def main(arguments: list[str] | None = None, program: str = "python -m itjax.training.contrastive") -> int:
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
    settings = ContrastiveTraining(steps=args.steps, seed=args.seed)
    return STATUS[train(settings, Plan(args.out, args.steps, args.minutes, measure_every=1000, save_every=1000), Terminal())]


def _parser(program: str) -> argparse.ArgumentParser:
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        program, description=description, epilog=more, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--steps", type=int, default=2000, metavar="N", help="steps in total (default %(default)s)")
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="end after so many minutes; the same command continues (default: no limit)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
