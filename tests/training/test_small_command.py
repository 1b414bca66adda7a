"""The commands that train small networks: what their processes load, and what they say."""

import importlib
import subprocess
import sys

import pytest

TRAINERS = ("contrastive", "speech_encoder", "vae")


def test_processes_that_draw_import_the_commands_without_jax():
    """A spawned process imports the main module of the one that started it."""
    names = [f"itjax.training.{name}.__main__" for name in TRAINERS] + ["itjax.preparation.drawn.__main__"]
    program = f"import sys, {', '.join(names)}; print('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("flags", ["--steps 0", "--steps x", "--seed -1"])
@pytest.mark.parametrize("name", TRAINERS)
def test_numbers_that_cannot_be_are_refused(name, flags, tmp_path, capsys):
    """By the parser or by the settings: in a line that names the flag and the value."""
    command = importlib.import_module(f"itjax.training.{name}.__main__")
    try:
        status = command.main(["--out", str(tmp_path / "run"), *flags.split()])
    except SystemExit as ended:
        status = ended.code
    assert status == 2 and not (tmp_path / "run").exists()
    last = capsys.readouterr().err.splitlines()[-1]
    assert all(part in last for part in flags.split())


@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_has_the_shared_flags(name, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(f"itjax.training.{name}.__main__").main(["--help"])
    said = capsys.readouterr().out
    assert all(flag in said for flag in ("--out", "--steps", "--minutes", "--seed")) and "runs/" in said
