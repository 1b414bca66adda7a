"""What moves between devices at published size, read from the compiled program: no device of that kind is needed."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(("ulysses", "context", "persons"), [(8, 1, 1), (4, 2, 2)])
def test_a_step_moves_weights_keys_and_values_only(ulysses, context, persons, devices):
    command = [sys.executable, "-m", "tests.sampling.compiled_step", str(ulysses), str(context), str(persons)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=devices(8), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rematerialization" not in done.stderr, done.stderr
