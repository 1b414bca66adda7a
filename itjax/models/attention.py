"""Softmax attention over long sequences: which kernel runs where, and how the work is split. Knows no network."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from itjax.parallel.sharding import SEQUENCE, axis_size, constrain, devices, sequence_shards

# B batch · Q queries · K keys · H heads · d head width
_SCORES = 2**28  # elements of one block of scores outside a fused kernel: 1 GiB in float32
_WIDEST = 128  # head width that cuDNN's kernel takes on every GPU it runs on


def attention(
    q: Float[Array, "B Q H d"],
    k: Float[Array, "B K H d"],
    v: Float[Array, "B K H d"],
    num_keys: int | None = None,
    shards: int = 1,
) -> Float[Array, "B Q H d"]:
    """softmax(q·kᵀ/√d)·v over the first `num_keys` keys (all by default).

    cuDNN's fused kernel on GPU in half precision; elsewhere XLA's, a block of queries at a time where the scores of all
    of them would not fit. `shards`: how many parts the mesh splits the queries into; a block has some of each part, so
    that no part is moved.
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
    batch, length, *head = q.shape
    part = length // shards
    block = max(1, _SCORES * devices() // (batch * head[0] * k.shape[1] * shards))
    if part <= block:
        return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="xla")
    blocks = -(-part // block)
    block = -(-part // blocks)  # of one size, with little to pad
    # their gradients are sums over the blocks, which half precision would lose
    wide_k, wide_v = k.astype(jnp.float32), v.astype(jnp.float32)

    def plain(queries: Float[Array, "B shards block H d"]) -> Float[Array, "B shards block H d"]:
        flat = queries.reshape(batch, shards * block, *head)
        keys, values = wide_k.astype(k.dtype), wide_v.astype(v.dtype)
        return jax.nn.dot_product_attention(flat, keys, values, mask=mask, implementation="xla").reshape(queries.shape)

    parts = q.reshape(batch, shards, part, *head)
    padded = jnp.pad(parts, ((0, 0), (0, 0), (0, blocks * block - part), (0, 0), (0, 0)))
    # the backward pass makes the scores of a block again: those of all blocks would not fit
    out = jax.lax.map(jax.checkpoint(plain), jnp.moveaxis(padded.reshape(batch, shards, blocks, block, *head), 2, 0))
    return jnp.moveaxis(out, 0, 2).reshape(padded.shape)[:, :, :part].reshape(q.shape)


def self_attention(
    q: Float[Array, "B Q H d"], k: Float[Array, "B K H d"], v: Float[Array, "B K H d"], num_keys: int | None = None
) -> Float[Array, "B Q H d"]:
    """Attention of tokens that are split over the mesh: split over heads (Ulysses) and queries (context) meanwhile.

    Over heads as in DeepSpeed-Ulysses (arXiv 2309.14509); the compiler makes its exchanges of the constraints.
    """
    q = constrain(q, "data", "context", "ulysses", None)
    k, v = (constrain(x, "data", None, "ulysses", None) for x in (k, v))
    y = attention(q, k, v, num_keys, axis_size("context"))
    # the gradients, too, come back over heads first
    return constrain(constrain(y, "data", "context", "ulysses", None), "data", SEQUENCE, None, None)


def cross_attention(
    q: Float[Array, "B Q H d"], k: Float[Array, "B K H d"], v: Float[Array, "B K H d"]
) -> Float[Array, "B Q H d"]:
    """Attention of tokens that are split over the mesh to few keys: those are gathered, the tokens stay."""
    q = constrain(q, "data", SEQUENCE, None, None)
    k, v = (constrain(x, "data", None, None, None) for x in (k, v))
    return constrain(attention(q, k, v, shards=sequence_shards()), "data", SEQUENCE, None, None)
