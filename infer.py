"""Makes a talking video: `python infer.py --help`, or see README.md."""

import sys

from itjax.commands.infer import main

if __name__ == "__main__":
    sys.exit(main(program="infer.py"))
