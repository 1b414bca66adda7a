"""Run by test_devices.py in a process of its own: a folder prepared on four fake devices."""

import sys

import jax

from itjax.preparation import encode
from itjax.preparation.__main__ import main

if __name__ == "__main__":
    assert len(jax.devices()) == 4
    run, seen = encode._in_batches, []

    def watched(encoders, *args):
        seen.append(encoders.batch)
        return run(encoders, *args)

    encode._in_batches = watched
    status = main(sys.argv[1:])
    assert set(seen) == {4}, seen  # one on each device
    sys.exit(status)
