"""Trains the small wav2vec2 speech encoder on the drawn world's speech.

    python -m itjax.training.speech_encoder --out runs/speech

A run that was interrupted continues with the same command. OUT/metrics.jsonl and curve.png hold losses and figures; after
the last step, OUT/export holds the weights in bfloat16, and card.json with the figures on voices and sentences kept out of
training.
"""

import argparse
import sys

from itjax.terminal import Terminal
from itjax.training import small_command
from itjax.training.speech_encoder.settings import SpeechTraining


def main(arguments: list[str] | None = None, program: str = "python -m itjax.training.speech_encoder") -> int:
    """Returns the exit status, as `small_command.run`."""
    args = _parser(program).parse_args(arguments)
    return small_command.run(program, lambda: start(args))


def start(args: argparse.Namespace) -> int:
    """Trains as the flags say; returns the exit status.

    Raises:
        UserError: As `train`.
    """
    # here: the processes that make speech import this module, too, and do without JAX
    from itjax.pipeline.process import keep_compiled_programs
    from itjax.training.run import STATUS
    from itjax.training.speech_encoder.run import train

    keep_compiled_programs()
    settings = SpeechTraining(steps=args.steps, batch=args.batch, seed=args.seed)
    return STATUS[train(settings, args.out, args.minutes, Terminal())]


def _parser(program: str) -> argparse.ArgumentParser:
    parser = small_command.parser(program, __doc__)
    default = SpeechTraining()
    for flag, value, text in (("--steps", default.steps, "steps in total"), ("--batch", default.batch, "examples per step")):
        parser.add_argument(flag, type=int, default=value, metavar="N", help=f"{text} (default %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
