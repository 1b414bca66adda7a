"""Attention, block by block and with padded keys, against the formula written out."""

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
