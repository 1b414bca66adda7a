"""Trains the small picture and text encoders together on drawn stills and their prompts.

    python -m itjax.training.contrastive --out runs/encoders

A run that was interrupted continues with the same command. OUT/metrics.jsonl holds losses and figures; after the last step,
OUT/result holds the weights, the tokenizer, and card.json with the figures on people kept out of training.
"""

import argparse
import sys

from itjax.terminal import Terminal
from itjax.training import small_command
from itjax.training.contrastive.settings import ContrastiveTraining


def main(arguments: list[str] | None = None, program: str = "python -m itjax.training.contrastive") -> int:
    """Returns the exit status, as `small_command.run`."""
    args = _parser(program).parse_args(arguments)
    return small_command.run(program, lambda: start(args))


def start(args: argparse.Namespace) -> int:
    """Trains as the flags say; returns the exit status.

    Raises:
        UserError: As `train`.
    """
    # here: the processes that draw import this module, too, and do without JAX
    from itjax.pipeline.process import keep_compiled_programs
    from itjax.training.contrastive.train import train
    from itjax.training.run import STATUS
    from itjax.training.small_loop import Plan

    keep_compiled_programs()
    settings = ContrastiveTraining(steps=args.steps, seed=args.seed)
    return STATUS[train(settings, Plan(args.out, args.steps, args.minutes, measure_every=1000, save_every=1000), Terminal())]


def _parser(program: str) -> argparse.ArgumentParser:
    parser = small_command.parser(program, __doc__)
    parser.add_argument("--steps", type=int, default=2000, metavar="N", help="steps in total (default %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
