"""The whole chunk loop on 8 fake devices equals one device."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_eight_devices_equal_one(devices):
    command = [sys.executable, "-m", "tests.sampling.eight_devices"]
    done = subprocess.run(command, cwd=ROOT, env=devices(8), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 2 frames" in done.stdout
