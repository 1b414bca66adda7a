"""UMT5 encoder (arXiv 2304.09151): T5 1.1 (arXiv 1910.10683) with a relative position bias in EVERY layer."""

# B batch · S tokens · N heads · D width

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from itjax.config import Umt5Sizes
from itjax.models import layers


def relative_buckets(length: int, buckets: int, max_distance: int) -> Int[np.ndarray, "length length"]:
    """Bucket of each relative position (key - query), as [query, key] (T5, section 2.1).

    Half of the buckets are for keys after the query. Within each half, the first half of the buckets hold one distance
    each; the rest grow logarithmically up to `max_distance`, and the last one holds everything beyond. Computed in
    float32, as when the weights were trained.
    """
    offset = np.arange(length)[None] - np.arange(length)[:, None]
    half, distance = buckets // 2, np.abs(offset)
    exact = half // 2
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        np.log(max_distance / exact)
    )
    far = np.minimum(exact + (growth * np.float32(half - exact)).astype(np.int32), half - 1)
    return np.where(offset > 0, half, 0) + np.where(distance < exact, distance, far)


def rms_norm(name: str) -> layers.RMSNorm:
    """RMSNorm with epsilon 1e-6, in float32."""
    return layers.RMSNorm(epsilon=1e-6, dtype=jnp.float32, name=name)


class Block(layers.Module):
    """A pre-norm layer: attention with a relative position bias and without scaling, then a gated MLP."""

    sizes: Umt5Sizes
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "B S D"], mask: Int[Array, "B S"], buckets: Int[Array, "S S"]
    ) -> tuple[Float[Array, "B S D"], None]:
        """Applies the layer; the second result is the scan output, which is unused.

        Args:
            x: states of the tokens.
            mask: 1 for tokens, 0 for padding, which is not attended to.
            buckets: from `relative_buckets`; row numbers in this layer's table of position biases.
        """
        sizes = self.sizes
        dense = lambda width, name: layers.Dense(width, use_bias=False, dtype=self.dtype, name=name)
        table = self.param("position_embedding", nn.initializers.normal(0.02), (sizes.buckets, sizes.heads))
        bias = jnp.moveaxis(table.astype(jnp.float32)[buckets], -1, 0)[None]  # [1, N, S, S]
        y = rms_norm("norm1")(x)
        q, k, v = (dense(sizes.attention_width, name)(y).reshape(*x.shape[:-1], sizes.heads, -1) for name in ("q", "k", "v"))
        keys = mask[:, None, None].astype(bool)
        attended = jax.nn.dot_product_attention(q, k, v, bias=bias, mask=keys, scale=1.0)
        x = x + dense(sizes.width, "out")(attended.reshape(*x.shape[:-1], -1))
        y = rms_norm("norm2")(x)
        hidden = dense(sizes.mlp, "fc1")(y) * nn.gelu(dense(sizes.mlp, "gate")(y), approximate=True)
        return x + dense(sizes.width, "fc2")(hidden), None


class Umt5(layers.Module):
    """Maps token ids to states. States of padding are meaningless: drop them or set them to zero."""

    sizes: Umt5Sizes
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, ids: Int[Array, "B S"], mask: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        """`mask` is 1 for tokens and 0 for padding."""
        sizes = self.sizes
        x = layers.Embed(sizes.vocabulary, sizes.width, dtype=self.dtype, name="token_embedding")(ids)
        buckets = jnp.asarray(relative_buckets(ids.shape[1], sizes.buckets, sizes.max_distance))
        blocks = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=sizes.layers,
        )
        x, _ = blocks(sizes, self.dtype, name="blocks")(x, mask, buckets)
        return rms_norm("norm")(x).astype(self.dtype)
