"""Trains the small wav2vec2 speech encoder on the drawn world's speech.

    python -m itjax.training.speech_encoder --out runs/speech --minutes 60

The run's folder OUT has metrics.jsonl, curve.png, checkpoints, and at the end export/checkpoint (weights in bfloat16) and
export/card.json (figures on voices and sentences that were not trained on). The same command resumes an interrupted run.
"""

import argparse
import sys
from pathlib import Path

from itjax.pipeline.process import keep_compiled_programs
from itjax.terminal import Terminal, run_command
from itjax.training.run import STATUS
from itjax.training.speech_encoder.run import train
from itjax.training.speech_encoder.settings import SpeechTraining


def main(arguments: list[str] | None = None, program: str = "python -m itjax.training.speech_encoder") -> int:
    """Returns the exit status.

    0 for success, 2 for a user error, 3 if a file cannot be written, 75 if preempted (the state is saved), 130 if
    interrupted.
    """
    args = _parser(program).parse_args(arguments)
    return run_command(program, lambda: start(args), "stopped; run the same command to continue from the last checkpoint")


def start(args: argparse.Namespace) -> int:
    """Trains as the flags say; returns the exit status."""
    keep_compiled_programs()
    settings = SpeechTraining(steps=args.steps, minutes=args.minutes, seed=args.seed)
    return STATUS[train(settings, args.out, Terminal())]


def _parser(program: str) -> argparse.ArgumentParser:
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        program, description=description, epilog=more, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="end after N steps")
    parser.add_argument(
        "--minutes", type=float, default=0.0, metavar="M", help="end after M minutes; with --steps, whichever comes first"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
