"""Trains InfiniteTalk: `python train.py --help`, `python train.py PRESET --help`, or see README.md."""

from itjax.commands.train import run

if __name__ == "__main__":
    run(program="train.py")
