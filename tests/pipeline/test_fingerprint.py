"""What a run is recognised by when it is continued: everything that determines its frames."""

from dataclasses import replace

import jax.numpy as jnp
import pytest

from itjax.config import Sampler
from itjax.pipeline.fingerprint import fingerprint
from itjax.pipeline.inputs import Inputs
from itjax.pipeline.request import Request
from itjax.pipeline.settings import Settings

SIZE = "infinitetalk-480"
CACHED = Sampler(teacache_threshold=0.2)


def fingerprint_of(weights, face, sampler, **changed):
    settings = Settings("a", sampler, SIZE, dtype=jnp.dtype("float32"), **changed)
    return fingerprint(Inputs(Request("p", face, {"person1": None}), None, 64, 48, [], None), settings, weights)


def with_other_networks(preset):
    return replace(preset, networks=replace(preset.networks, dit=replace(preset.networks.dit, num_heads=8)))


def with_other_polynomial(preset):
    return replace(preset, sizes=preset.sizes | {SIZE: replace(preset.sizes[SIZE], teacache=(1.0, 2.0))})


@pytest.mark.parametrize(
    ("change", "sampler", "differ"),
    [
        (with_other_networks, Sampler(), {"networks"}),
        (with_other_polynomial, CACHED, {"TeaCache"}),
        (with_other_polynomial, Sampler(), set()),
        (lambda preset: replace(preset, name="mine"), CACHED, set()),
    ],
)
def test_a_preset_that_makes_other_frames_is_another_run(change, sampler, differ, weights, face):
    before = fingerprint_of(weights, face, sampler)
    now = fingerprint_of(weights._replace(preset=change(weights.preset)), face, sampler)
    assert {key for key in before if before[key] != now[key]} == differ


def test_a_silent_tail_is_another_run(weights, face):
    usual, silent = (fingerprint_of(weights, face, Sampler(), silent_tail=value) for value in (False, True))
    assert "tail" not in usual and silent == usual | {"tail": "silent"}


def test_branches_in_turn_are_another_run_and_others_are_as_before_there_was_a_choice(weights, face):
    usual, in_turn = (fingerprint_of(weights, face, Sampler(), branches_in_turn=value) for value in (False, True))
    assert "branches" not in usual and in_turn == usual | {"branches": "in turn"}
