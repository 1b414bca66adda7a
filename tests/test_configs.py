"""Presets by name or file, and the official sizes they are chosen by: what does not fit is said in a sentence."""

import json
from pathlib import Path

import pytest

from itjax.configs import PRESETS, matching, named
from itjax.configs.training import SMALL
from itjax.errors import UserError

FILES = {
    "raises": ("1 / 0", "failed: ZeroDivisionError"),
    "exits": ("import sys; sys.exit(5)", "failed: SystemExit"),
    "no Python": ("PRESET = (", "failed: SyntaxError"),
    "none in it": ("x = 1", "defines no PRESET"),
    "size 0": (
        "from dataclasses import replace\nfrom itjax.configs.tiny import PRESET as TINY\n"
        "PRESET = replace(TINY, networks=replace(TINY.networks, dit=replace(TINY.networks.dit, dim=0)))",
        r"networks\.dit\.dim is '0'",
    ),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_a_preset_file_that_is_none(content, message, tmp_path):
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(UserError, match=rf"--preset .*mine\.py: .*{message}"):
        named(str(tmp_path / "mine.py"))


def test_the_files_of_the_package_are_presets():
    folder = Path(__file__).parents[1] / "itjax" / "configs"
    assert {named(str(folder / f"{name}.py")).name for name in ("tiny", "infinitetalk_14b")} <= set(PRESETS)


def test_reports_of_the_small_model_are_sampled_as_its_videos_are():
    preset, sampler = named("small"), SMALL.reports.sampler
    assert sampler == preset.sampler
    assert {sampler.shift_at(size) for size in preset.sizes.values()} == {3.0}


@pytest.mark.parametrize("content", ["[]", "{}", "3", "null", '"dim"', '{"_class_name": "WanModel"}', '{"dim": "96"}', "{"])
def test_sizes_of_another_shape(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        matching(tmp_path)


def test_sizes_of_wan(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"dim": 5120, "num_layers": 40}))
    assert matching(tmp_path).networks.dit.dim == 5120
