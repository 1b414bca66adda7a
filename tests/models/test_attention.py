"""Attention, block by block and with padded keys, against the formula written out."""

import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itjax.models import attention


def written_out(q, k, v):
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), v)


@pytest.mark.parametrize("scores", [2**28, 500, 1])
@pytest.mark.parametrize("num_keys", [None, 13, 9])
def test_attention(scores, num_keys, monkeypatch):
    monkeypatch.setattr(attention, "_SCORES", scores)
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(2, n, 3, 8)), jnp.float32) for n in (11, 13, 13))
    expected = written_out(q, k[:, :num_keys], v[:, :num_keys])
    chex.assert_trees_all_close(attention.attention(q, k, v, num_keys), expected, atol=1e-5)


@pytest.mark.parametrize("num_keys", [None, 320, 300])
def test_many_scores_on_a_cpu_are_computed_head_by_head(num_keys, monkeypatch):
    """With their gradients. Large scores, whose exponentials are beyond float32, and keys that do not count."""
    by_head, calls = attention._head_by_head, []
    monkeypatch.setattr(attention, "_head_by_head", lambda *args: calls.append(0) or by_head(*args))
    rng = np.random.default_rng(0)
    q, k, v, cotangent = (jnp.asarray(rng.normal(size=(2, n, 3, 8)), jnp.float32) for n in (256, 320, 320, 256))
    ours, pull = jax.vjp(lambda *x: attention.attention(*x, num_keys), 40 * q, k, v)
    expected, pull_expected = jax.vjp(lambda q, k, v: written_out(q, k[:, :num_keys], v[:, :num_keys]), 40 * q, k, v)
    assert calls
    chex.assert_trees_all_close(ours, expected, atol=1e-4)  # float32: scores of up to 200 are rounded to 1e-5
    chex.assert_trees_all_close(pull(cotangent), pull_expected(cotangent), atol=1e-2, rtol=1e-3)
    chex.assert_trees_all_equal(attention.attention(q[:, :200], k, v, num_keys).shape, (2, 200, 3, 8))
    assert len(calls) == 1  # for few scores, one product of all heads is faster


@pytest.mark.parametrize("scores", [2**28, 64 * 2])
def test_gradients_of_keys_and_values_are_summed_in_float32(scores, monkeypatch):
    """In bfloat16 a sum over hundreds of blocks of queries would stand still after the first few."""
    monkeypatch.setattr(attention, "_SCORES", scores)
    rng = np.random.default_rng(0)
    draw = lambda length: jnp.asarray(rng.normal(size=(1, length, 1, 16)), jnp.bfloat16)
    q, k, v = draw(600), draw(64), draw(64)
    cotangent = jnp.asarray(rng.normal(0.5, 1, q.shape), jnp.bfloat16)
    pull = lambda call, wide: jax.vjp(call, *(x.astype(wide) for x in (q, k, v)))[1](cotangent.astype(wide))
    found, expected = pull(attention.attention, jnp.bfloat16), pull(written_out, jnp.float32)
    for name, ours, exact in zip("qkv", found, expected, strict=True):
        error = jnp.linalg.norm(ours.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
        # half precision has 8 bits: each product is good to 0.4 %, and so is their sum where it is made in float32
        assert error < 1e-2, (name, error)


@pytest.mark.slow
def test_on_every_kind_of_mesh(devices):
    """Equal to one device, with its gradients; and JAX can split cuDNN's kernel as it is called."""
    command = [sys.executable, "-m", "tests.models.attention_on_eight_devices"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=devices(8), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 meshes" in done.stdout
