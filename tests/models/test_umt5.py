import json
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from itjax.config import Umt5Sizes
from itjax.models.umt5 import Umt5, relative_buckets
from itjax.weights import mapping
from itjax.weights.tables.umt5 import TABLE

TINY = Umt5Sizes(vocabulary=320, width=48, attention_width=40, mlp=56, layers=2, heads=4)


def shapes(sizes):
    tokens = jnp.zeros((1, 8), jnp.int32)
    return jax.eval_shape(lambda: Umt5(sizes).init(jax.random.key(0), tokens, tokens))["params"]


@pytest.fixture(scope="module")
def tensors(recordings):
    file = recordings / "checkpoint" / "Wan2.1-I2V-14B-480P" / "models_t5_umt5-xxl-enc-bf16.pth"
    return {name: tensor.numpy() for name, tensor in torch.load(file, weights_only=True).items()}


@pytest.fixture(scope="module")
def params(tensors):
    return mapping.to_jax(TABLE, shapes(TINY), tensors)


@pytest.fixture(scope="module")
def tokens(module_recording):
    recording = module_recording("umt5")
    return jnp.asarray(recording["inputs.ids"], jnp.int32), jnp.asarray(recording["inputs.mask"], jnp.int32)


def test_states_follow_the_recording(params, tokens, module_recording):
    states = np.asarray(jax.jit(Umt5(TINY).apply)({"params": params}, *tokens))
    recording = module_recording("umt5")
    for i, length in enumerate(np.asarray(tokens[1]).sum(1)):
        # float32 both; the order of sums differs
        chex.assert_trees_all_close(states[i, :length], recording[f"outputs.context_{i}"], atol=1e-5)


def test_full_size_is_the_published_network(recordings):
    published = json.loads((recordings / "full_size" / "umt5_xxl_encoder.json").read_text())
    assert mapping.torch_shapes(TABLE, shapes(Umt5Sizes())) == {name: tuple(s) for name, s in published.items()}


def test_to_torch_and_back_is_the_identity(params, tensors):
    back = dict(mapping.to_torch(TABLE, params))
    assert set(back) == set(tensors)
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, tensors[name])
    chex.assert_trees_all_equal(mapping.to_jax(TABLE, shapes(TINY), back), params)


def test_buckets_are_those_of_training():
    """Over all offsets of 512 tokens: a rounding of the logarithm on the other side would move a whole bucket."""
    offset = torch.arange(512)[None] - torch.arange(512)[:, None]
    distance = offset.abs()
    far = 8 + (torch.log(distance.clamp(min=1).float() / 8) / math.log(128 / 8) * 8).long()
    expected = (offset > 0).long() * 16 + torch.where(distance < 8, distance, far.clamp(max=15))
    np.testing.assert_array_equal(relative_buckets(512, 32, 128), expected.numpy())


def test_padding_changes_nothing(params, tokens):
    ids, mask = tokens
    apply = jax.jit(Umt5(TINY).apply)
    short = apply({"params": params}, ids[:, :20], mask[:, :20])
    full = apply({"params": params}, jnp.where(mask, ids, 7), mask)
    for i, length in enumerate(np.asarray(mask).sum(1)):
        chex.assert_trees_all_close(full[i, :length], short[i, :length], atol=1e-5)  # sums of other lengths


def test_bfloat16_stays_near(params, tokens):
    exact = jax.jit(Umt5(TINY).apply)({"params": params}, *tokens)[1, :20]
    rough = jax.jit(Umt5(TINY, jnp.bfloat16).apply)({"params": params}, *tokens)[1, :20]
    assert rough.dtype == jnp.bfloat16
    error = jnp.linalg.norm(rough.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
    assert error < 0.05  # bfloat16 keeps 8 bits: 4e-3 an operation; the scores are not scaled down here
