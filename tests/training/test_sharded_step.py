"""Gradients, losses and the state on 8 fake devices, over every axis of the mesh, equal those on one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_eight_devices_equal_one(checkpoint, devices):
    here = Path(__file__).parent
    path = os.pathsep.join(map(str, (ROOT, here.parent, here)))
    environment = devices(8) | {"PYTHONPATH": path}
    command = [sys.executable, str(here / "eight_devices.py"), str(checkpoint)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]
    assert all(word in done.stdout for word in ("gradients", "state", "muon"))
