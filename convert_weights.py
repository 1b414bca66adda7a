"""Converts weights, there and back: `python convert_weights.py --help`, or see README.md."""

import sys

from itjax.commands.convert import run

if __name__ == "__main__":
    sys.exit(run(program="convert_weights.py"))
