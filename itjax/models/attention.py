"""Softmax attention over long sequences: which kernel runs where, and how the work is split. Knows no network."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from itjax.sharding import SEQUENCE, constrain

# B batch · Q asking tokens · K answering tokens · H heads · d head width
_SCORES = 2**28  # elements of one block of scores outside a fused kernel: 1 GiB in float32
_WIDEST = 128  # head width that cuDNN's kernel takes on every GPU it runs on


def attention(
    q: Float[Array, "B Q H d"], k: Float[Array, "B K H d"], v: Float[Array, "B K H d"], num_keys: int | None = None
) -> Float[Array, "B Q H d"]:
    """softmax(q·kᵀ/√d)·v over the first `num_keys` keys (all by default).

    cuDNN's fused kernel on GPU in half precision; elsewhere XLA's, a block of queries at a time where the scores of all
    of them would not fit.
    """
    num_keys = None if num_keys == k.shape[1] else num_keys
    fused = q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0 and q.shape[-1] <= _WIDEST
    if fused and jax.default_backend() == "gpu":
        lengths = None if num_keys is None else jnp.full(q.shape[0], num_keys, jnp.int32)
        queries = None if num_keys is None else jnp.full(q.shape[0], q.shape[1], jnp.int32)
        return jax.nn.dot_product_attention(
            q, k, v, query_seq_lengths=queries, key_value_seq_lengths=lengths, implementation="cudnn"
        )
    mask = None if num_keys is None else (jnp.arange(k.shape[1]) < num_keys)[None, None, None]
    plain = lambda part: jax.nn.dot_product_attention(part, k, v, mask=mask, implementation="xla")
    block = max(1, _SCORES // (q.shape[0] * q.shape[2] * k.shape[1]))
    if q.shape[1] <= block:
        return plain(q)
    blocks = -(-q.shape[1] // block)
    padded = jnp.pad(q, ((0, 0), (0, blocks * block - q.shape[1]), (0, 0), (0, 0)))
    parts = padded.reshape(q.shape[0], blocks, block, *q.shape[2:]).swapaxes(0, 1)
    out = jax.lax.map(plain, parts).swapaxes(0, 1)
    return out.reshape(padded.shape)[:, : q.shape[1]]


def self_attention(
    q: Float[Array, "B Q H d"], k: Float[Array, "B K H d"], v: Float[Array, "B K H d"], num_keys: int | None = None
) -> Float[Array, "B Q H d"]:
    """Attention of tokens that are split over the mesh: split over heads (Ulysses) and asking tokens (context) meanwhile."""
    q = constrain(q, "data", "context", "ulysses", None)
    k, v = (constrain(x, "data", None, "ulysses", None) for x in (k, v))
    return constrain(attention(q, k, v, num_keys), "data", SEQUENCE, None, None)


def cross_attention(
    q: Float[Array, "B Q H d"], k: Float[Array, "B K H d"], v: Float[Array, "B K H d"]
) -> Float[Array, "B Q H d"]:
    """Attention of tokens that are split over the mesh to few keys: those are gathered, the tokens stay."""
    q = constrain(q, "data", SEQUENCE, None, None)
    k, v = (constrain(x, "data", None, None, None) for x in (k, v))
    return constrain(attention(q, k, v), "data", SEQUENCE, None, None)
