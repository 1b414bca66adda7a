"""The flags of infer.py and train.py: names that fit on a disk, and errors that speak of the command's own flags."""

import json
import os
import re

import pytest

from itjax import configs
from itjax.commands import flags, from_flags, train
from itjax.configs.tiny import PRESET
from itjax.errors import UserError
from itjax.pipeline.request import Request


@pytest.mark.parametrize("prompt", ["🙂" * 60, "𝒜" * 60, "a woman talks", "あ" * 60])
def test_a_default_name_fits_into_a_folder(prompt, face):
    args = flags.parser("infer.py").parse_args([])
    name = from_flags.settings_of(args, PRESET, Request(prompt, face, {})).save_file.name
    assert len(os.fsencode(name + ".persons.png")) < 255
    assert name.startswith("infinitetalk-14B_infinitetalk-480_" + prompt[:13].replace(" ", "_").replace("🙂", "_"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--reports.sampler.steps", "0"], "--reports.sampler.steps 0: must be within 1..1000"),
        (["--reports.sampler.color-strength", "nan"], "--reports.sampler.color-strength nan: must be within 0..1"),
    ],
)
def test_training_names_its_own_flags(wrong, said, capsys):
    assert train.main(["tiny", *wrong]) == 2
    assert f"train.py: {said}" in capsys.readouterr().err


# -- presets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit(0)", "running this file failed: SystemExit: 0"),
        ("import sys; sys.exit('bye')", "running this file failed: SystemExit: bye"),
        ("1 / 0", "running this file failed: ZeroDivisionError: division by zero"),
        ("def", "running this file failed: SyntaxError: invalid syntax"),
        ("\0", "running this file failed: SyntaxError"),
        ("class E(BaseException): pass\nraise E", "running this file failed: E"),
        ("class E(Exception): __str__ = None\nraise E", "running this file failed: E: (without a description)"),
        ("PRESET = 5", "defines no PRESET"),
    ],
)
def test_a_preset_that_fails_is_named(code, reason, tmp_path):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(UserError, match=rf"--preset .*mine\.py: .*{re.escape(reason)}"):
        configs.named(str(tmp_path / "mine.py"))


def test_that_a_preset_runs_code_is_said_in_its_help():
    (line,) = [action.help for action in flags.parser("infer.py")._actions if action.dest == "preset"]
    assert "which is run" in line


def test_a_preset_is_not_reached_from_a_json(tmp_path, face):
    (tmp_path / "mine.py").write_text("raise AssertionError('this code must not run')")
    content = {"prompt": "p", "cond_video": str(face), "cond_audio": {"person1": "None"}}
    (tmp_path / "input.json").write_text(json.dumps(content | {"preset": str(tmp_path / "mine.py"), "size": "mine.py"}))
    args = flags.parser("infer.py").parse_args(["--input_json", str(tmp_path / "input.json")])
    with pytest.warns(UserWarning, match=r"ignoring unknown key\(s\) preset, size"):
        assert from_flags.request_of(args).prompt == "p"
    assert args.preset is None
