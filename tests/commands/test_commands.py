"""`itjax COMMAND`: what is installed, and that nothing but itjax is put into site-packages."""

import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from itjax import commands
from itjax.commands import COMMANDS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        commands.main([name, "--help"])
    assert ended.value.code == 0 and f"itjax {name}" in capsys.readouterr().out


def test_without_a_command_they_are_listed(capsys):
    assert commands.main([]) == 2 and commands.main(["sing"]) == 2
    listed = capsys.readouterr().err
    assert commands.main(["--help"]) == 0
    assert all(name in listed for name in COMMANDS) and capsys.readouterr().out in listed


def test_the_package_installs_itjax_and_nothing_else():
    setuptools = PROJECT["tool"]["setuptools"]
    assert setuptools["py-modules"] == [] and setuptools["packages"]["find"]["include"] == ["itjax*"]
    assert pkgutil.resolve_name(PROJECT["project"]["scripts"]["itjax"]) is commands.main
    assert sorted(path.name for path in (ROOT / "configs").glob("*.py")) == sorted(
        path.name for path in (ROOT / "itjax" / "configs").glob("*.py")
    )


@pytest.mark.parametrize("script", ["infer.py", "train.py", "convert_weights.py"])
def test_the_scripts_run_from_any_folder(script, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(ROOT / script), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and script in done.stdout, done.stderr
