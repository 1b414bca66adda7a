"""The flags of infer.py and train.py: names that fit on a disk, and errors that speak of the command's own flags."""

import os

import pytest

from itjax.commands import flags, train
from itjax.configs.tiny import PRESET
from itjax.pipeline.request import Request


@pytest.mark.parametrize("prompt", ["🙂" * 60, "𝒜" * 60, "a woman talks", "あ" * 60])
def test_a_default_name_fits_into_a_folder(prompt, face):
    args = flags.parser("infer.py").parse_args([])
    name = flags.settings_of(args, PRESET, Request(prompt, face, {})).save_file.name
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
