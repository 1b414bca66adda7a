"""Schedule, guidance, colour and step cache against the official code."""

import math
import re

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from itjax.config import MAX_STEPS, SHIFTS, Apg, Sampler
from itjax.errors import UserError
from itjax.sampling import teacache
from itjax.sampling.color import color_statistics, match_colors
from itjax.sampling.guidance import adaptive_projected, classifier_free, make_guide, scales_of
from itjax.sampling.schedule import euler_times


@pytest.mark.parametrize(("steps", "shift"), [(1, 5), (4, 7), (8, 2), (40, 7), (40, 11)])
def test_times(steps, shift, module_recording):
    expected = module_recording("timesteps")[f"timesteps_{steps}_steps_shift_{shift}"]
    np.testing.assert_allclose(euler_times(steps, float(shift)), expected, rtol=1e-6)  # one rounding in float32


def branches(recording, step, names):
    return jnp.stack([jnp.moveaxis(recording[f"inputs.{name}_{step}"], 0, -1) for name in names])


def channels_first(x):
    return np.moveaxis(np.asarray(x), -1, 0)


THREE, TWO = ("cond", "drop_text", "uncond"), ("cond", "drop_text")


def test_classifier_free_guidance(module_recording):
    recording = module_recording("guidance")
    for step in range(4):
        ours = classifier_free(branches(recording, step, THREE), scales_of(Sampler()))
        chex.assert_trees_all_close(channels_first(ours), recording[f"outputs.cfg_{step}"], atol=1e-5)
        ours = classifier_free(branches(recording, step, TWO), scales_of(Sampler(text_scale=1.0, audio_scale=2.0)))
        chex.assert_trees_all_close(channels_first(ours), recording[f"outputs.cfg_text_scale_1_{step}"], atol=1e-5)


def test_adaptive_projected_guidance(module_recording):
    recording = module_recording("guidance")
    momentum = jnp.zeros((2, 3, 4, 5, 16))
    for step in range(4):
        velocities = branches(recording, step, THREE)
        ours, momentum = adaptive_projected(velocities, momentum, scales_of(Sampler()))
        # the official code projects in float64; the momentum adds up the rest
        chex.assert_trees_all_close(channels_first(ours), recording[f"outputs.apg_{step}"], atol=1e-4, rtol=1e-4)


def test_a_norm_threshold_of_zero_is_none():
    """As in the official code, which scales down only if the threshold is above 0."""
    velocities = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 4, 4, 16)), jnp.float32)
    momentum = jnp.zeros_like(velocities[:2])
    none, large = (
        adaptive_projected(velocities, momentum, scales_of(Sampler(apg=Apg(norm_threshold=t)))) for t in (0.0, 1e6)
    )
    chex.assert_trees_all_equal(none, large)
    assert jnp.abs(none[0] - velocities[0]).max() > 1


def test_scales_of_one_are_the_plain_velocity():
    velocities = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 4, 4, 16)), jnp.float32)
    for sampler in (Sampler(text_scale=1.0, audio_scale=1.0), Sampler(text_scale=1.0, audio_scale=1.0, apg=Apg())):
        guide = make_guide(sampler, scales_of(sampler))
        ours, _ = guide(velocities[: sampler.branches], jnp.zeros_like(velocities[: sampler.branches - 1]))
        chex.assert_trees_all_close(ours, velocities[0], atol=1e-6)
    ones = scales_of(Sampler(text_scale=1.0, audio_scale=1.0))
    chex.assert_trees_all_close(classifier_free(velocities, ones), velocities[0], atol=1e-6)


@pytest.mark.parametrize(("name", "strength"), [("strength_1", 1.0), ("strength_0.4", 0.4), ("flat_strength_1", 1.0)])
def test_color(name, strength, module_recording):
    recording = module_recording("color")
    pixels = lambda x: jnp.asarray(np.moveaxis(x[0], 0, -1))
    video = pixels(recording["inputs.flat_video" if name.startswith("flat") else "inputs.video"])
    target = color_statistics(pixels(recording["inputs.reference"])[0])
    ours = match_colors(video, target, strength)
    # cube roots and powers in float32: 1e-4 of the range at most, where a dark channel is stretched
    chex.assert_trees_all_close(np.asarray(ours), np.asarray(pixels(recording[f"outputs.{name}"])), atol=2e-4)


def test_step_cache_skips_by_the_accumulated_change():
    """A constant relative change of 1 % with poly = identity: from the sixth step on, every third step reaches 2.5 %."""
    features = np.cumprod(np.full(14, 1.01))[:, None, None] * np.ones((14, 6, 4))
    runs = teacache.schedule(features, (1.0, 0.0), 0.025)
    assert runs.tolist() == [True] * 5 + [False, False, True] * 3
    assert teacache.schedule(features, (1.0, 0.0), 0.0).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"frame_num": 80},
        {"frame_num": 1_000_001},
        {"motion_frames": 4},
        {"steps": 0},
        {"steps": 10**12},
        {"color_strength": 1.5},
        {"color_strength": math.nan},
        {"shift": math.nan},
        {"shift": 1e-30},
        {"shift": 1e300},
        {"text_scale": 1e39},
        {"audio_scale": -math.inf},
        {"teacache_threshold": math.nan},
        {"teacache_threshold": math.inf},
    ],
)
def test_settings_that_no_chunk_can_be_made_of(settings):
    (name,) = settings
    with pytest.raises(UserError, match=f"^{name} "):
        Sampler(**settings)


@pytest.mark.parametrize("settings", [{"frame_num": 9}, {"frame_num": 5, "motion_frames": 5}])
def test_a_context_as_long_as_the_chunk(settings):
    with pytest.raises(UserError, match="leaves no new frame in chunks of frame_num"):
        Sampler(**settings)


@pytest.mark.parametrize("name", ["momentum", "norm_threshold"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_adaptive_guidance_out_of_range(name, value):
    with pytest.raises(UserError, match=f"^apg.{name} {re.escape(str(value))}: must be within"):
        Apg(**{name: value})


def test_the_ends_of_the_ranges_give_finite_times():
    for shift in SHIFTS:
        assert np.isfinite(euler_times(MAX_STEPS, shift)).all()
