"""Softmax attention over long sequences: kernel selection, blocking and sharding. Independent of any network."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from itjax.parallel.sharding import SEQUENCE, axis_size, constrain, device_count, sequence_shards

# B batch · Q queries · K keys · H heads · d head dimension
_SCORES = 2**28  # scores per block of queries when no fused kernel is used: 1 GiB in float32
_MAX_HEAD_DIM = 128  # largest head dimension that cuDNN's kernel supports on every GPU it runs on


def attention(
    q: Float[Array, "B Q H d"],
    k: Float[Array, "B K H d"],
    v: Float[Array, "B K H d"],
    num_keys: int | None = None,
    shards: int = 1,
) -> Float[Array, "B Q H d"]:
    """softmax(q·kᵀ/√d)·v over the first `num_keys` keys (all by default).

    Uses cuDNN's fused kernel on GPU in half precision, and XLA's otherwise, which processes the queries in blocks if the
    full score matrix would not fit. `shards` is the number of shards of the query axis on the mesh; each block takes
    queries from every shard, so that no shard is moved.
    """
    num_keys = None if num_keys == k.shape[1] else num_keys
    fused = q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0 and q.shape[-1] <= _MAX_HEAD_DIM
    if fused and jax.default_backend() == "gpu":
        lengths = None if num_keys is None else jnp.full(q.shape[0], num_keys, jnp.int32)
        queries = None if num_keys is None else jnp.full(q.shape[0], q.shape[1], jnp.int32)
        return jax.nn.dot_product_attention(
            q, k, v, query_seq_lengths=queries, key_value_seq_lengths=lengths, implementation="cudnn"
        )
    mask = None if num_keys is None else (jnp.arange(k.shape[1]) < num_keys)[None, None, None]
    batch, length, *head = q.shape
    shard_length = length // shards
    block = max(1, _SCORES * device_count() // (batch * head[0] * k.shape[1] * shards))
    if shard_length <= block:
        return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="xla")
    blocks = -(-shard_length // block)
    block = -(-shard_length // blocks)  # blocks of equal size, with minimal padding
    # the gradients of keys and values are summed over the blocks, which would lose accuracy in half precision
    wide_k, wide_v = k.astype(jnp.float32), v.astype(jnp.float32)

    def attend_block(queries: Float[Array, "B shards block H d"]) -> Float[Array, "B shards block H d"]:
        flat = queries.reshape(batch, shards * block, *head)
        keys, values = wide_k.astype(k.dtype), wide_v.astype(v.dtype)
        return jax.nn.dot_product_attention(flat, keys, values, mask=mask, implementation="xla").reshape(queries.shape)

    sharded = q.reshape(batch, shards, shard_length, *head)
    padded = jnp.pad(sharded, ((0, 0), (0, 0), (0, blocks * block - shard_length), (0, 0), (0, 0)))
    # the backward pass recomputes the scores block by block: those of all blocks would not fit
    out = jax.lax.map(jax.checkpoint(attend_block), jnp.moveaxis(padded.reshape(batch, shards, blocks, block, *head), 2, 0))
    return jnp.moveaxis(out, 0, 2).reshape(padded.shape)[:, :, :shard_length].reshape(q.shape)


def self_attention(
    q: Float[Array, "B Q H d"], k: Float[Array, "B K H d"], v: Float[Array, "B K H d"], num_keys: int | None = None
) -> Float[Array, "B Q H d"]:
    """Self-attention of tokens sharded on the mesh, computed with sharded heads (`ulysses`) and queries (`context`).

    Sharding over heads follows DeepSpeed-Ulysses (arXiv 2309.14509); the compiler derives the all-to-alls from the
    constraints.
    """
    q = constrain(q, "data", "context", "ulysses", None)
    k, v = (constrain(x, "data", None, "ulysses", None) for x in (k, v))
    y = attention(q, k, v, num_keys, axis_size("context"))
    # the inner constraint reshards the gradients over heads, too, before the backward pass of the attention
    return constrain(constrain(y, "data", "context", "ulysses", None), "data", SEQUENCE, None, None)


def cross_attention(
    q: Float[Array, "B Q H d"], k: Float[Array, "B K H d"], v: Float[Array, "B K H d"]
) -> Float[Array, "B Q H d"]:
    """Attention from tokens sharded on the mesh to a short sequence: its keys and values are gathered, the tokens stay."""
    q = constrain(q, "data", SEQUENCE, None, None)
    k, v = (constrain(x, "data", None, None, None) for x in (k, v))
    return constrain(attention(q, k, v, shards=sequence_shards()), "data", SEQUENCE, None, None)
