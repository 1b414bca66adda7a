"""Attention on TPU by JAX's Pallas kernel (splash attention): the scores stay in the chip's fast memory.

The batch, which is that of the guidance branches, is folded into the heads, so that one kernel runs over all of it.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# B batch · Q queries · K keys · H heads · d head dimension
LANES = 128  # of a TPU's vector registers: blocks and head dimensions are multiples of it
_LARGEST_HEAD = 2 * LANES
_BLOCK = 1024  # queries, and keys, that are in fast memory at a time
_COMPUTED = 512  # keys that are computed at a time


def supports(q: Float[Array, "B Q H d"], k: Float[Array, "B K H d"]) -> bool:
    """Whether the kernel takes these arrays and is worth it: with few keys the scores are no larger than the queries."""
    head_dim = q.shape[-1]
    return q.dtype == jnp.bfloat16 and head_dim % LANES == 0 and head_dim <= _LARGEST_HEAD and k.shape[1] >= LANES


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def splash_attention(
    q: Float[Array, "B Q H d"],
    k: Float[Array, "B K H d"],
    v: Float[Array, "B K H d"],
    num_keys: int,
    interpret: bool = False,
) -> Float[Array, "B Q H d"]:
    """softmax(q·kᵀ/√d)·v over the first `num_keys` keys. `interpret`: without a TPU, for tests."""
    # the kernel's products are of bfloat16, which "highest", as it is set everywhere, would refuse
    with jax.default_matmul_precision("default"):
        return _folded(q, k, v, num_keys=num_keys, interpret=interpret)


def _forward(q, k, v, num_keys, interpret):
    with jax.default_matmul_precision("default"):
        return jax.vjp(partial(_folded, num_keys=num_keys, interpret=interpret), q, k, v)


def _backward(num_keys, interpret, pull, cotangent):
    with jax.default_matmul_precision("default"):
        return pull(cotangent)


splash_attention.defvjp(_forward, _backward)


def _folded(
    q: Float[Array, "B Q H d"], k: Float[Array, "B K H d"], v: Float[Array, "B K H d"], *, num_keys: int, interpret: bool
) -> Float[Array, "B Q H d"]:
    # half a second, for which only a TPU need wait
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    batch, length, heads, head_dim = q.shape
    (block_q, padded_q), (block_k, padded_k) = _blocks(length), _blocks(k.shape[1])
    q = (q.astype(jnp.float32) / math.sqrt(head_dim)).astype(q.dtype)
    q, k, v = (_by_head(x, padded) for x, padded in ((q, padded_q), (k, padded_k), (v, padded_k)))
    computed = math.gcd(block_k, _COMPUTED)
    sizes = splash.BlockSizes(
        block_q=block_q, block_kv=block_k, block_kv_compute=computed,
        block_q_dkv=block_q, block_kv_dkv=block_k, block_kv_dkv_compute=computed,
        block_q_dq=block_q, block_kv_dq=block_k,
    )  # fmt: skip
    mask = masks.MultiHeadMask([masks.FullMask((padded_q, padded_k))] * (batch * heads))
    kernel = splash.make_splash_mha(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret)
    segments = None
    if padded_k != num_keys:  # keys of another segment are not seen
        segments = splash.SegmentIds(jnp.zeros(padded_q, jnp.int32), (jnp.arange(padded_k) >= num_keys).astype(jnp.int32))
    y = kernel(q, k, v, segment_ids=segments)[:, :length]
    return jnp.moveaxis(y.reshape(batch, heads, length, head_dim), 1, 2)


def _blocks(length: int) -> tuple[int, int]:
    """The size of blocks, all equal, and the length that is padded to them."""
    count = -(-length // _BLOCK)
    block = -(-length // (count * LANES)) * LANES
    return block, count * block


def _by_head(x: Float[Array, "B N H d"], padded: int) -> Float[Array, "BH padded d"]:
    x = jnp.pad(x, ((0, 0), (0, padded - x.shape[1]), (0, 0), (0, 0)))
    return jnp.moveaxis(x, 2, 1).reshape(-1, padded, x.shape[-1])
