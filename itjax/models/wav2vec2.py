"""wav2vec 2.0 (arXiv 2006.11477), the base network with group norm: audio in, the outputs of all layers out.

Quantities of the whole track (the moments of the first layer, the grid of video frames) can be passed as arguments, so
that the convolutions give the same result for a window of a long track as for the whole track.
"""

# B batch · N samples · S convolution steps (20 ms) · F video frames · C convolution width · D width

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from itjax.config import Wav2Vec2Sizes
from itjax.models import layers

EPS = 1e-5
STEPS_PER_BLOCK = 1 << 19  # first-layer steps whose patches are held in memory at once: 40 MB in float64


class Moments(NamedTuple):
    """Mean and variance over time of the first convolution's outputs, channel by channel."""

    mean: Float[Array, "B C"] | Float[np.ndarray, "B C"]
    variance: Float[Array, "B C"] | Float[np.ndarray, "B C"]


class FrameGrid(NamedTuple):
    """Positions of F frames among the convolution steps: `left` + `weight`, a sum that float32 would round."""

    left: Int[Array, " F"] | Int[np.ndarray, " F"]
    weight: Float[Array, " F"] | Float[np.ndarray, " F"]


def frame_grid(frames: Int[np.ndarray, " F"], num_frames: int, num_steps: int) -> FrameGrid:
    """Positions of `frames`, out of `num_frames`, among `num_steps`; the first and the last coincide (align corners)."""
    left, rest = np.divmod(frames.astype(np.int64) * (num_steps - 1), max(num_frames - 1, 1))
    return FrameGrid(left.astype(np.int32), (rest / max(num_frames - 1, 1)).astype(np.float32))


def resample(features: Float[Array, "B S C"], grid: FrameGrid) -> Float[Array, "B F C"]:
    """Linear interpolation in time: (1 - weight)·features[left] + weight·features[left + 1]."""
    weight = jnp.asarray(grid.weight, features.dtype)[:, None]
    right = jnp.minimum(grid.left + 1, features.shape[1] - 1)
    return (1 - weight) * features[:, grid.left] + weight * features[:, right]


def first_layer_moments(
    kernel: Float[np.ndarray, "K 1 C"], stride: int, read: Callable[[int, int], np.ndarray], num_samples: int
) -> Moments:
    """Moments of the first layer over a whole track, [1, C]; `read(start, stop)` returns its samples, block by block.

    The layer is linear without bias. With μ and Σ the mean and covariance of its input patches of K samples, the outputs
    of a channel with weights w have mean w·μ and variance wᵀΣw, so no output needs to be computed.
    """
    size = kernel.shape[0]
    steps = (num_samples - size) // stride + 1
    total, products = np.zeros(size), np.zeros((size, size))
    for start in range(0, steps, STEPS_PER_BLOCK):
        stop = min(start + STEPS_PER_BLOCK, steps)
        samples = read(start * stride, (stop - 1) * stride + size).astype(np.float64)
        patches = np.lib.stride_tricks.sliding_window_view(samples, size)[::stride]
        total += patches.sum(0)
        products += patches.T @ patches
    mean = total / steps
    covariance = products / steps - np.outer(mean, mean)
    w = np.asarray(kernel[:, 0], np.float64)
    variance = np.maximum(np.einsum("kc,kl,lc->c", w, covariance, w), 0)
    return Moments((mean @ w)[None].astype(np.float32), variance[None].astype(np.float32))


class TimeNorm(layers.Module):
    """Group norm with one channel per group: every channel gets mean 0 and variance 1 over time, in float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "B S C"], moments: Moments | None) -> Float[Array, "B S C"]:
        """Normalises `x` by its own moments, or by `moments` of the whole track if `x` is a window of it."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        mean, variance = moments or (x.mean(1), x.var(1))
        return (x - mean[:, None]) * (jax.lax.rsqrt(variance + EPS)[:, None] * scale) + bias


class FeatureExtractor(layers.Module):
    """Feature encoder (section 2): convolutions without bias or padding, each followed by GELU."""

    sizes: Wav2Vec2Sizes
    dtype: DTypeLike

    @nn.compact
    def __call__(self, samples: Float[Array, "B N"], moments: Moments | None) -> Float[Array, "B S C"]:
        """Features of the convolution steps. `moments`: those of the whole track, if `samples` is a window of it."""
        x = samples[..., None].astype(self.dtype)
        for i, (kernel, stride) in enumerate(zip(self.sizes.conv_kernels, self.sizes.conv_strides, strict=True)):
            x = layers.Conv(
                self.sizes.conv_width, (kernel,), (stride,), "VALID", use_bias=False, dtype=self.dtype, name=f"conv_{i}"
            )(x)
            if i == 0:
                x = TimeNorm(name="norm")(x, moments).astype(self.dtype)
            x = nn.gelu(x, approximate=False)
        return x


class FeatureProjection(layers.Module):
    """LayerNorm and projection to the transformer's width."""

    sizes: Wav2Vec2Sizes
    dtype: DTypeLike

    @nn.compact
    def __call__(self, features: Float[Array, "B F C"]) -> Float[Array, "B F D"]:
        """Projects the features of each frame."""
        return layers.Dense(self.sizes.width, dtype=self.dtype, name="projection")(layers.layer_norm("norm")(features))


class PositionalConv(layers.Module):
    """Relative positional embedding: a grouped convolution and GELU (section 2, contextualized representations).

    The kernel is gain·v/|v|, with |v| computed per kernel position (weight norm, arXiv 1602.07868).
    """

    sizes: Wav2Vec2Sizes
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B F D"]) -> Float[Array, "B F D"]:
        """Returns the embedding to add to the frames `x`, of the same shape."""
        size, groups, width = self.sizes.position_kernel, self.sizes.position_groups, self.sizes.width
        direction = self.param("direction", nn.initializers.lecun_normal(), (size, width // groups, width))
        gain = self.param("gain", nn.initializers.ones, (size, 1, 1))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        direction, gain = direction.astype(jnp.float32), gain.astype(jnp.float32)
        kernel = gain * direction / jnp.sqrt(jnp.sum(direction**2, (1, 2), keepdims=True))
        x = jax.lax.conv_general_dilated(
            x,
            kernel.astype(self.dtype),
            window_strides=(1,),
            padding=[(size // 2, (size - 1) // 2)],  # size // 2 on both sides gives one frame too many if size is even
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=groups,
        )
        return nn.gelu(x + bias.astype(self.dtype), approximate=False)


class Block(layers.Module):
    """A post-norm transformer layer. Its output is both the carry and the output of the scan."""

    sizes: Wav2Vec2Sizes
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "B F D"], mask: Bool[Array, "B F"] | None
    ) -> tuple[Float[Array, "B F D"], Float[Array, "B F D"]]:
        """Applies the layer; returns its output twice, as carry and scan output. Masked frames are not attended to."""
        dense = lambda width, name: layers.Dense(width, dtype=self.dtype, name=name)
        heads = lambda y: y.reshape(*y.shape[:-1], self.sizes.heads, -1)
        q, k, v = (heads(dense(self.sizes.width, name)(x)) for name in ("q", "k", "v"))
        keys = None if mask is None else mask[:, None, None]
        attended = jax.nn.dot_product_attention(q, k, v, mask=keys).reshape(x.shape)
        x = layers.layer_norm("norm1")(x + dense(self.sizes.width, "out")(attended)).astype(self.dtype)
        hidden = nn.gelu(dense(self.sizes.mlp, "fc1")(x), approximate=False)
        x = layers.layer_norm("norm2")(x + dense(self.sizes.width, "fc2")(hidden)).astype(self.dtype)
        return x, x


class Encoder(layers.Module):
    """Positional embedding, norm, and transformer layers; returns the outputs of all layers."""

    sizes: Wav2Vec2Sizes
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B F D"], mask: Bool[Array, "B F"] | None) -> Float[Array, "B F layers D"]:
        """Outputs of all layers. Frames for which `mask` is False are set to zero and not attended to."""
        if mask is not None:
            x = jnp.where(mask[..., None], x, 0)  # beyond the track, the convolution must see zeros, like its own padding
        x = x + PositionalConv(self.sizes, self.dtype, name="positions")(x)
        x = layers.layer_norm("norm")(x).astype(self.dtype)
        blocks = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            out_axes=2,
            length=self.sizes.layers,
        )
        return blocks(self.sizes, self.dtype, name="blocks")(x, mask)[1]


class Wav2Vec2(layers.Module):
    """Maps audio at 16 kHz, with mean 0 and variance 1, to the outputs of all layers for each video frame."""

    sizes: Wav2Vec2Sizes
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Creates the three submodules; `convolve` runs the first, `encode` the other two."""
        self.feature_extractor = FeatureExtractor(self.sizes, self.dtype)
        self.feature_projection = FeatureProjection(self.sizes, self.dtype)
        self.encoder = Encoder(self.sizes, self.dtype)

    def convolve(self, samples: Float[Array, "B N"], moments: Moments | None = None) -> Float[Array, "B S C"]:
        """Features of the convolutions. `moments`: those of the whole track, if `samples` is a window of it."""
        return self.feature_extractor(samples, moments)

    def encode(
        self, features: Float[Array, "B F C"], mask: Bool[Array, "B F"] | None = None
    ) -> Float[Array, "B F layers D"]:
        """Outputs of all layers. `mask` is False for frames outside the track, whose outputs are meaningless."""
        return self.encoder(self.feature_projection(features), mask)

    def __call__(self, samples: Float[Array, "B N"], num_frames: int) -> Float[Array, "B F layers D"]:
        """Encodes a whole track. Features are resampled to the video's rate BEFORE the transformer, unlike the original."""
        features = self.convolve(samples)
        return self.encode(resample(features, frame_grid(np.arange(num_frames), num_frames, features.shape[1])))
