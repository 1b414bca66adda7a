"""The TPU's attention kernel: in interpret mode against the formula, and lowered for a TPU at published sizes."""

import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_attention import written_out

from itjax.models import attention, splash
from itjax.models.attention import cross_attention, self_attention

HEADS, HEAD_DIM, TOKENS = 5, 128, 33600  # of one of eight chips: 640x640, 81 frames
KERNEL = "tpu_custom_call"


def draw(rng, length, heads=2):
    return jnp.asarray(rng.normal(size=(2, length, heads, HEAD_DIM)), jnp.bfloat16)


@pytest.mark.parametrize(("queries", "keys", "num_keys"), [(200, 300, 257), (130, 256, 256), (256, 384, 100)])
def test_values_and_gradients_over_several_blocks(queries, keys, num_keys, monkeypatch):
    """Batch and heads are kept apart, lengths that are no multiples of the blocks are padded, and padding is not seen."""
    monkeypatch.setattr(splash, "_BLOCK", 128)
    rng = np.random.default_rng(0)
    q, k, v, cotangent = draw(rng, queries), draw(rng, keys), draw(rng, keys), draw(rng, queries)
    kernel = lambda *x: splash.splash_attention(*x, num_keys, True)
    pull = lambda call, *x: (lambda y, back: (y, *back(cotangent.astype(y.dtype))))(*jax.vjp(call, *x))
    found = jax.jit(lambda *x: pull(kernel, *x))(q, k, v)
    wide = [x.astype(jnp.float32) for x in (q, k, v)]
    expected = pull(lambda q, k, v: written_out(q, k[:, :num_keys], v[:, :num_keys]), *wide)
    for name, ours, exact in zip(("y", "q", "k", "v"), found, expected, strict=True):
        assert ours.dtype == jnp.bfloat16
        error = jnp.linalg.norm(ours.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
        assert error < 6e-3, (name, error)  # 8 bits: what is read and written is good to 0.2 %, as are the scaled queries
    chex.assert_trees_all_equal(found[2][:, num_keys:], jnp.zeros_like(k[:, num_keys:]))


def test_blocks_are_equal_and_cover_the_length():
    for length in (1, 128, 129, 1024, 1025, TOKENS):
        block, padded = splash._blocks(length)
        assert block % splash.LANES == 0 and block <= splash._BLOCK
        assert padded % block == 0 and length <= padded < length + padded // block * splash.LANES


def lowered(monkeypatch, call, *shapes, dtype=jnp.bfloat16):
    """The program for a TPU, as XLA would be given it."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with jax.default_matmul_precision("highest"):  # as the commands set it
        traced = jax.jit(call).trace(*(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes))
        return traced.lower(lowering_platforms=("tpu",)).as_text()


def test_published_sizes_never_write_the_scores(monkeypatch):
    tokens = (3, TOKENS, HEADS, HEAD_DIM)
    text = lowered(monkeypatch, lambda *x: self_attention(*x, TOKENS - 5), tokens, tokens, tokens)
    assert KERNEL in text and "dot_general" not in text
    prompt = (3, 512, HEADS, HEAD_DIM)
    text = lowered(monkeypatch, cross_attention, tokens, prompt, prompt)
    assert KERNEL in text and "dot_general" not in text


def test_gradients_at_published_size_lower(monkeypatch):
    tokens = (1, TOKENS, HEADS, HEAD_DIM)
    total = lambda *x: self_attention(*x).astype(jnp.float32).sum()
    text = lowered(monkeypatch, jax.grad(total, (0, 1, 2)), tokens, tokens, tokens)
    assert text.count(KERNEL) == 3  # forward, and two backward
    products = [
        math.prod(map(int, shape.split("x"))) for shape in re.findall(r"dot_general.*-> tensor<([0-9x]+)xf32>", text)
    ]
    assert max(products) <= HEADS * (TOKENS + splash._BLOCK)  # one number for each query


@pytest.mark.parametrize(
    ("head_dim", "keys", "dtype"), [(128, 32, jnp.bfloat16), (80, 257, jnp.bfloat16), (128, 512, jnp.float32)]
)
def test_what_the_kernel_does_not_take_is_left_to_xla(head_dim, keys, dtype, monkeypatch):
    """Few keys (a frame's audio), head dimensions that do not fill the registers (CLIP), and float32, which stays exact."""
    tokens, others = (2, 256, 4, head_dim), (2, keys, 4, head_dim)
    assert KERNEL not in lowered(monkeypatch, attention.attention, tokens, others, others, dtype=dtype)
