"""Image encoder of CLIP ViT-H/14 (arXiv 2103.00020, arXiv 2010.11929 section 3.1), up to its penultimate block.

Wan conditions on those tokens, so the last block, the final norm and the text encoder are not implemented.
"""

# B batch · N tokens: the class token, then the patches row by row · D width

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from itjax.config import ClipSizes
from itjax.models import layers


class Block(layers.Module):
    """A pre-norm transformer layer."""

    sizes: ClipSizes
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"], _: None) -> tuple[Float[Array, "B N D"], None]:
        """Applies the layer. `nn.scan` requires the second argument and the second result, which are unused."""
        dense = lambda width, name: layers.Dense(width, dtype=self.dtype, name=name)
        qkv = dense(3 * self.sizes.width, "qkv")(layers.layer_norm("norm1")(x))
        q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:-1], 3, self.sizes.heads, -1), -3, 0)
        attended = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        x = x + dense(self.sizes.width, "out")(attended)
        hidden = nn.gelu(dense(self.sizes.mlp, "fc1")(layers.layer_norm("norm2")(x)), approximate=False)
        return x + dense(self.sizes.width, "fc2")(hidden), None


class Clip(layers.Module):
    """Maps an image to its tokens after the penultimate block, without a final norm."""

    sizes: ClipSizes
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B N D"]:
        """`image` is 224 x 224 and normalised with CLIP's mean and standard deviation."""
        sizes = self.sizes
        patch = (sizes.patch, sizes.patch)
        x = layers.Conv(sizes.width, patch, patch, "VALID", use_bias=False, dtype=self.dtype, name="patch_embedding")(image)
        x = x.reshape(x.shape[0], -1, sizes.width)
        normal = nn.initializers.normal(sizes.width**-0.5)
        class_token = self.param("class_embedding", normal, (1, 1, sizes.width)).astype(self.dtype)
        position = self.param("position_embedding", normal, (1, sizes.tokens, sizes.width)).astype(self.dtype)
        x = jnp.concatenate([jnp.broadcast_to(class_token, (x.shape[0], 1, sizes.width)), x], 1) + position
        x = layers.layer_norm("norm")(x).astype(self.dtype)
        blocks = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=sizes.applied_layers)
        return blocks(sizes, self.dtype, name="blocks")(x, None)[0]
