"""Presets in JSON: what was written is read, and every damaged size is refused by its key."""

import copy
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from itjax.config import Apg, Sampler, to_json
from itjax.configs import PRESETS
from itjax.configs.tiny import PRESET
from itjax.preset_json import preset_from_json

CONTENT = json.loads(json.dumps(to_json(PRESET)))
STRANGE = (0, -1, "x", None, 1.5, 2**20 + 1, 10**30, 1e300, float("nan"), float("inf"), [], [1])


def leaves(content: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all values that hold no others, and of lists."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, (*path, key))
        return
    yield path
    for i, value in enumerate(content if isinstance(content, list) else ()):
        yield from leaves(value, (*path, i))


def changed(path: tuple, value: Any) -> Any:
    content = copy.deepcopy(CONTENT)
    node = content
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return content


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip(name):
    assert preset_from_json(json.loads(json.dumps(to_json(PRESETS[name])))) == PRESETS[name]


NETWORKS = list(leaves(CONTENT["networks"], ("networks",)))


@pytest.mark.parametrize("path", NETWORKS, ids=[".".join(map(str, path)) for path in NETWORKS])
def test_a_strange_size_is_named(path):
    for value in STRANGE:
        with pytest.raises(ValueError, match=str(path[1])):
            preset_from_json(changed(path, value))


PICTURES = [path for path in leaves(CONTENT["sizes"], ("sizes",)) if path[2] != "teacache"]


@pytest.mark.parametrize("value", [0, -1, "x", None, 1e300, float("nan"), [], [1], [16, 15], [2**20, 2**20]], ids=str)
def test_a_strange_picture_size_is_named(value):
    for path in PICTURES:
        with pytest.raises(ValueError, match=f"sizes.{path[1]}.{path[2]}"):
            preset_from_json(changed(path, value))


@pytest.mark.parametrize("path", [("networks",), ("sizes",), ("networks", "dit"), ("networks", "dit", "audio")])
@pytest.mark.parametrize("value", [None, 3, "x", [], [1]], ids=str)
def test_a_part_of_another_kind_is_named(path, value):
    with pytest.raises(ValueError, match=r"\.".join(path)):
        preset_from_json(changed(path, value))


@pytest.mark.parametrize("content", [None, [], 3, "x", {}, {"name": 3}], ids=str)
def test_no_preset_at_all(content):
    with pytest.raises(ValueError, match="must be"):
        preset_from_json(content)


RELATIONS = {
    ("dit", "num_heads"): 5,
    ("dit", "in_dim"): 35,
    ("dit", "freq_dim"): 33,
    ("dit", "patch_size"): [1, 4, 4],
    ("dit", "num_layers"): 1001,
    ("dit", "text_len"): 2**20,
    ("dit", "audio", "frames_per_latent"): 3,
    ("dit", "audio", "window"): 4,
    ("umt5", "heads"): 7,
    ("umt5", "buckets"): 6,
    ("umt5", "max_distance"): 8,
    ("clip", "heads"): 3,
    ("clip", "patch"): 15,
    ("clip", "layers"): 1,
    ("vae", "multipliers"): [1, 2],
    ("vae", "time_downsample"): [True, True],
    ("wav2vec2", "heads"): 5,
    ("wav2vec2", "position_groups"): 7,
    ("wav2vec2", "conv_strides"): [5, 2],
    ("wav2vec2", "conv_kernels"): [2**20] * 7,
}


@pytest.mark.parametrize(("key", "value"), RELATIONS.items(), ids=[".".join(key) for key in RELATIONS])
def test_sizes_that_contradict_each_other(key, value):
    with pytest.raises(ValueError, match=rf"networks\.{key[0]}\.{key[1]}"):
        preset_from_json(changed(("networks", *key), value))


def test_an_unknown_size_is_named():
    with pytest.raises(ValueError, match=r"networks\.dit\.depth is no size that this program knows"):
        preset_from_json(changed(("networks", "dit", "depth"), 3))


def test_a_size_that_is_missing_has_its_default():
    content = copy.deepcopy(CONTENT)
    del content["networks"]["dit"]["eps"]
    assert preset_from_json(content) == PRESET


def test_sampling_settings_are_kept_and_those_of_older_files_are_the_default_ones():
    sampler = Sampler(steps=3, apg=Apg(-0.5, 20.0), teacache_threshold=0.1)
    assert preset_from_json(changed(("sampler",), json.loads(json.dumps(asdict(sampler))))).sampler == sampler
    content = copy.deepcopy(CONTENT)
    del content["sampler"]
    assert preset_from_json(content) == PRESET


def test_the_shift_is_that_of_the_picture_size():
    """Older files have one among the sampling settings, which is that of 480p whatever the size."""
    sampler = preset_from_json(changed(("sampler",), {"shift": 7.0})).sampler
    assert [sampler.shift_at(PRESET.sizes[f"infinitetalk-{size}"]) for size in (480, 720)] == [7.0, 11.0]
    assert Sampler(shift=2.0).shift_at(PRESET.sizes["infinitetalk-720"]) == 2.0


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (None, "sampler"),
        ([], "sampler"),
        ({"step": 3}, r"sampler\.step is no setting"),
        ({"steps": "x"}, r"sampler\.steps"),
        ({"steps": 1.5}, r"sampler\.steps"),
        ({"steps": True}, r"sampler\.steps"),
        ({"steps": 10**30}, "sampler: steps"),
        ({"text_scale": float("nan")}, "sampler: text_scale"),
        ({"text_scale": None}, r"sampler\.text_scale"),
        ({"strategy": 3}, r"sampler\.strategy"),
        ({"strategy": "x"}, "sampler: strategy"),
        ({"apg": 3}, r"sampler\.apg"),
        ({"apg": {"momentum": 7}}, r"sampler\.apg: apg\.momentum"),
    ],
    ids=str,
)
def test_a_strange_sampling_setting_is_named(value, key):
    with pytest.raises(ValueError, match=key):
        preset_from_json(changed(("sampler",), value))
