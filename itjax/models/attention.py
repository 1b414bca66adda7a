"""Softmax attention over long sequences: kernel selection, blocking and sharding. Independent of any network.

On a mesh, attention runs in `shard_map`: what moves between devices is written down here, and a kernel sees the arrays of
one device. Left to itself, the compiler cannot split a kernel, and gathers queries that are processed in blocks.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float

from itjax.models import splash
from itjax.parallel.sharding import SEQUENCE, axis_size, device_count, sequence_shards

# B batch · Q queries · K keys · H heads · d head dimension
_SCORES = 2**28  # scores per block of queries when no fused kernel is used: 1 GiB in float32
_SCORES_OF_HEAD = 2**16  # scores of one head from which on a CPU computes one head after another
_MAX_HEAD_DIM = 128  # largest head dimension that cuDNN's kernel supports on every GPU it runs on


def attention(
    q: Float[Array, "B Q H d"], k: Float[Array, "B K H d"], v: Float[Array, "B K H d"], num_keys: int | None = None
) -> Float[Array, "B Q H d"]:
    """softmax(q·kᵀ/√d)·v over the first `num_keys` keys (all by default), of arrays on one device.

    In half precision it uses cuDNN's fused kernel on GPU and Pallas' on TPU, and XLA's otherwise: on CPU in float32 head by
    head if there are many scores, and in blocks of queries if the full score matrix would not fit.
    """
    backend, used = jax.default_backend(), k.shape[1] if num_keys is None else num_keys
    fused = q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0 and q.shape[-1] <= _MAX_HEAD_DIM
    if fused and backend == "gpu":
        return _cudnn_attention(q, k, v, used)
    if backend == "tpu" and splash.supports(q, k):
        return splash.splash_attention(q, k, v, used)
    num_keys = None if num_keys == k.shape[1] else num_keys
    mask = None if num_keys is None else (jnp.arange(k.shape[1]) < num_keys)[None, None, None]
    batch, length, *head = q.shape
    is_wide = _SCORES_OF_HEAD <= length * k.shape[1] <= _SCORES
    if is_wide and q.dtype == jnp.float32 and backend == "cpu":
        return _head_by_head(q, k, v, mask)
    block = max(1, _SCORES // (batch * head[0] * k.shape[1]))
    if length <= block:
        return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="xla")
    blocks = -(-length // block)
    block = -(-length // blocks)  # blocks of equal size, with minimal padding
    # the gradients of keys and values are summed over the blocks, which would lose accuracy in half precision
    wide_k, wide_v = k.astype(jnp.float32), v.astype(jnp.float32)

    def attend_block(queries: Float[Array, "B block H d"]) -> Float[Array, "B block H d"]:
        keys, values = wide_k.astype(k.dtype), wide_v.astype(v.dtype)
        return jax.nn.dot_product_attention(queries, keys, values, mask=mask, implementation="xla")

    padded = jnp.pad(q, ((0, 0), (0, blocks * block - length), (0, 0), (0, 0)))
    # the backward pass recomputes the scores block by block: those of all blocks would not fit
    out = jax.lax.map(jax.checkpoint(attend_block), jnp.moveaxis(padded.reshape(batch, blocks, block, *head), 1, 0))
    return jnp.moveaxis(out, 0, 1).reshape(padded.shape)[:, :length]


def _head_by_head(
    q: Float[Array, "B Q H d"], k: Float[Array, "B K H d"], v: Float[Array, "B K H d"], mask: Bool[Array, "1 1 1 K"] | None
) -> Float[Array, "B Q H d"]:
    """`attention` on CPU: XLA computes products of a batch several times more slowly than one product after another."""
    batch, length, heads, head_dim = q.shape

    @jax.checkpoint  # computing the scores again takes less time than keeping them
    def attend(one: tuple[Array, Array, Array]) -> Float[Array, "Q d"]:
        q, k, v = one
        scores = (q / math.sqrt(head_dim)) @ k.T
        if mask is not None:
            scores = jnp.where(mask[0, 0], scores, -jnp.inf)
        weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
        return weights @ v / weights.sum(axis=-1, keepdims=True)

    by_head = [jnp.moveaxis(x, 2, 1).reshape(batch * heads, -1, head_dim) for x in (q, k, v)]
    out = jax.lax.map(attend, tuple(by_head))
    return jnp.moveaxis(out.reshape(batch, heads, length, head_dim), 1, 2)


def _cudnn_attention(
    q: Float[Array, "B Q H d"], k: Float[Array, "B K H d"], v: Float[Array, "B K H d"], num_keys: int
) -> Float[Array, "B Q H d"]:
    """`attention` by cuDNN's kernel. Odd lengths, as CLIP's 257 tokens, are padded: it has gradients of even ones only."""
    batch, num_queries = q.shape[:2]
    q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    lengths = lambda x, used: None if x.shape[1] == used else jnp.full(batch, used, jnp.int32)
    of_queries, of_keys = lengths(q, num_queries), lengths(k, num_keys)
    y = jax.nn.dot_product_attention(
        q, k, v, query_seq_lengths=of_queries, key_value_seq_lengths=of_keys, implementation="cudnn"
    )
    return y[:, :num_queries]


def self_attention(
    q: Float[Array, "B Q H d"], k: Float[Array, "B K H d"], v: Float[Array, "B K H d"], num_keys: int | None = None
) -> Float[Array, "B Q H d"]:
    """Self-attention of tokens split over the mesh. Each device computes a share of the heads and of the queries.

    DeepSpeed-Ulysses (arXiv 2309.14509) over `ulysses`: an all-to-all turns shards of tokens into shards of heads, and
    another one turns them back. Over `context`, the queries stay where they are, and keys and values are gathered.
    """
    if device_count() == 1:
        return attention(q, k, v, num_keys)

    def of_one_device(q: Array, k: Array, v: Array) -> Array:
        q, k, v = (_all_to_all(x, split=2, concatenate=1) for x in (q, k, v))
        if axis_size("context") > 1:
            k, v = (jax.lax.all_gather(x, "context", axis=1, tiled=True) for x in (k, v))
        return _all_to_all(attention(q, k, v, num_keys), split=1, concatenate=2)

    tokens = P(_batch_axis(q), SEQUENCE)
    return jax.shard_map(of_one_device, in_specs=(tokens, tokens, tokens), out_specs=tokens, check_vma=False)(q, k, v)


def _batch_axis(x: Array) -> str | None:
    """The mesh axis of the batch; None (all of it on every device) if its size is not divisible, as that of one clip is."""
    return None if x.shape[0] % axis_size("data") else "data"


def _all_to_all(x: Array, split: int, concatenate: int) -> Array:
    """Splits one axis over `ulysses`, and puts another one together."""
    return x if axis_size("ulysses") == 1 else jax.lax.all_to_all(x, "ulysses", split, concatenate, tiled=True)


def cross_attention(
    q: Float[Array, "B Q H d"], k: Float[Array, "B K H d"], v: Float[Array, "B K H d"]
) -> Float[Array, "B Q H d"]:
    """Attention from tokens split over the mesh to a short sequence, which every device has: no token is moved."""
    if device_count() == 1:
        return attention(q, k, v)
    sequence = None if q.shape[1] % sequence_shards() else SEQUENCE
    tokens, whole = P(_batch_axis(q), sequence), P(_batch_axis(q))
    return jax.shard_map(attention, in_specs=(tokens, whole, whole), out_specs=tokens, check_vma=False)(q, k, v)
