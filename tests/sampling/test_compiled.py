"""What moves between devices at published size, read from the compiled program: no device of that kind is needed."""

import subprocess
import sys
from pathlib import Path

import pytest


def compiled(devices, module: str, *arguments: int) -> None:
    command = [sys.executable, "-m", f"tests.sampling.{module}", *map(str, arguments)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=devices(8), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rematerialization" not in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("ulysses", "context", "persons", "in_turn"), [(8, 1, 1, 0), (8, 1, 1, 1), (4, 2, 2, 0)])
def test_a_step_moves_weights_keys_and_values_only(ulysses, context, persons, in_turn, devices):
    compiled(devices, "compiled_step", ulysses, context, persons, in_turn)


@pytest.mark.slow
def test_the_vae_moves_only_rows_at_borders(devices):
    compiled(devices, "compiled_vae")
