"""`python -m itjax COMMAND ...`, which is `itjax COMMAND ...`."""

import sys

from itjax.commands import main

if __name__ == "__main__":
    sys.exit(main())
