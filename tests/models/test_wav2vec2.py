import json
from fnmatch import fnmatch
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from itjax.config import Wav2Vec2Sizes
from itjax.models.wav2vec2 import Wav2Vec2, first_layer_moments, frame_grid, resample
from itjax.weights import mapping
from itjax.weights.tables.wav2vec2 import TABLE, UNUSED

TINY = Wav2Vec2Sizes(conv_width=16, width=24, layers=3, heads=2, mlp=40, position_kernel=16, position_groups=4)


def shapes(sizes):
    return jax.eval_shape(lambda: Wav2Vec2(sizes).init(jax.random.key(0), jnp.zeros((1, 16000)), 25))["params"]


@pytest.fixture(scope="module")
def tensors(recordings):
    return load_file(recordings / "checkpoint" / "chinese-wav2vec2-base" / "model.safetensors")


@pytest.fixture(scope="module")
def params(tensors):
    return mapping.to_jax(TABLE, shapes(TINY), tensors)


def run(params, *arguments, dtype=jnp.float32, method="__call__"):
    """The tiny network on these arguments; integers are static."""
    model = Wav2Vec2(TINY, dtype)
    static = [i + 1 for i, argument in enumerate(arguments) if isinstance(argument, int)]
    return jax.jit(partial(model.apply, method=method), static_argnums=static)({"params": params}, *arguments)


def normalised(speech):
    return jnp.asarray((speech - speech.mean()) / np.sqrt(speech.var() + 1e-7))[None]


@pytest.fixture(scope="module")
def speech(module_recording):
    return normalised(module_recording("wav2vec2")["outputs.speech_b44100"])


@pytest.mark.parametrize(
    "sound, embedding",
    [("inputs.speech", "audio_embedding"), ("outputs.speech_b44100", "audio_embedding_b44100")],
)
def test_all_layers_follow_the_recording(sound, embedding, params, module_recording):
    recording = module_recording("wav2vec2")
    expected = recording[f"outputs.{embedding}"]
    ours = run(params, normalised(recording[sound]), len(expected))
    # float32 both. torch also rounds the places between two steps to float32, 1e-5 of a step here, which costs 6e-5
    chex.assert_trees_all_close(np.asarray(ours[0]), expected, atol=1e-4)


def test_full_size_is_the_published_network(recordings):
    published = json.loads((recordings / "full_size" / "chinese_wav2vec2_base.json").read_text())
    ours = mapping.torch_shapes(TABLE, shapes(Wav2Vec2Sizes()))
    used = {name: tuple(s) for name, s in published.items() if not any(fnmatch(name, p) for p in UNUSED)}
    assert ours == used
    assert set(published) - set(used) == {"masked_spec_embed"}


def test_to_torch_and_back_is_the_identity(params, tensors):
    back = dict(mapping.to_torch(TABLE, params))
    assert set(tensors) - set(back) == {"masked_spec_embed"}
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, tensors[name])
    chex.assert_trees_all_equal(mapping.to_jax(TABLE, shapes(TINY), back), params)


def test_sizes_that_follow():
    sizes = Wav2Vec2Sizes()
    assert (sizes.stride, sizes.receptive_field) == (320, 400)
    assert [sizes.steps(n) for n in (399, 400, 719, 720, 16000)] == [0, 1, 1, 2, 49]


@pytest.mark.parametrize("steps, frames", [(142, 71), (49, 25), (1, 1), (2, 1), (1, 3), (10, 30)])
def test_resampling_is_linear_with_aligned_corners(steps, frames):
    features = np.random.default_rng(0).normal(size=(2, steps, 5)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(features).transpose(1, 2), size=frames, mode="linear", align_corners=True
    ).transpose(1, 2)
    ours = resample(jnp.asarray(features), frame_grid(np.arange(frames), frames, steps))
    chex.assert_trees_all_close(np.asarray(ours), expected.numpy(), atol=5e-5)  # torch rounds the places to float32


def test_first_layer_moments_are_those_of_its_outputs(params, speech):
    """Computed from patches of samples, they are the mean and variance that the layer's outputs have."""
    kernel = params["feature_extractor"]["conv_0"]["kernel"]
    samples = np.asarray(speech[0])
    moments = first_layer_moments(kernel, 5, lambda start, stop: samples[start:stop], len(samples))
    patches = np.lib.stride_tricks.sliding_window_view(samples, 10)[::5].astype(np.float64)
    outputs = patches @ kernel[:, 0]
    chex.assert_trees_all_close(moments.mean[0], np.float32(outputs.mean(0)), atol=1e-6)
    chex.assert_trees_all_close(moments.variance[0], np.float32(outputs.var(0)), rtol=1e-5)


def test_first_layer_moments_do_not_depend_on_the_blocks(params, speech, monkeypatch):
    kernel, samples = params["feature_extractor"]["conv_0"]["kernel"], np.asarray(speech[0])
    read = lambda start, stop: samples[start:stop]
    whole = first_layer_moments(kernel, 5, read, len(samples))
    monkeypatch.setattr("itjax.models.wav2vec2.STEPS_PER_BLOCK", 1000)
    chex.assert_trees_all_close(first_layer_moments(kernel, 5, read, len(samples)), whole, rtol=1e-6, atol=1e-7)


def test_convolutions_of_a_part_are_a_part_of_the_convolutions(params, speech):
    samples = np.asarray(speech[0])
    kernel = params["feature_extractor"]["conv_0"]["kernel"]
    moments = first_layer_moments(kernel, 5, lambda start, stop: samples[start:stop], len(samples))
    whole = run(params, speech, method="convolve")
    part = speech[:, 20 * TINY.stride : 59 * TINY.stride + TINY.receptive_field]
    ours = run(params, part, moments, method="convolve")
    # float32; the moments of the whole are a sum in float32 there, in float64 here
    chex.assert_trees_all_close(ours, whole[:, 20:60], atol=1e-6)


def test_masked_frames_are_not_there(params):
    """A padded window gives at its frames what the unpadded one does: attention and positions meet the same edge."""
    features = jax.random.normal(jax.random.key(1), (1, 30, TINY.conv_width))
    padded = jnp.pad(features, ((0, 0), (20, 14), (0, 0)), constant_values=3.0)
    mask = jnp.zeros((1, 64), bool).at[:, 20:50].set(True)
    expected = run(params, features, method="encode")
    ours = run(params, padded, mask, method="encode")[:, 20:50]
    chex.assert_trees_all_close(ours, expected, atol=1e-5)  # float32; the sums have other lengths


def test_bfloat16_stays_near(params, speech):
    exact = run(params, speech, 71)
    rough = run(params, speech, 71, dtype=jnp.bfloat16)
    assert rough.dtype == jnp.bfloat16
    error = jnp.linalg.norm(rough.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
    assert error < 0.05  # bfloat16 keeps 8 bits: 4e-3 an operation, some twenty operations deep
