"""wav2vec 2.0 (arXiv 2006.11477), the base network with group norm: sound in, the outputs of all layers out.

What depends on a whole track (the moments of the first layer, the grid of video frames) can come in by argument, so
that the convolutions give of a window of a long track what they would give of the whole.
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

EPS = 1e-5
STEPS_PER_BLOCK = 1 << 19  # first-layer steps whose patches are in memory at once: 40 MB in float64


class Moments(NamedTuple):
    """Mean and variance over time of the first convolution's outputs, channel by channel."""

    mean: Float[Array, "B C"] | Float[np.ndarray, "B C"]
    variance: Float[Array, "B C"] | Float[np.ndarray, "B C"]


class Grid(NamedTuple):
    """Where F frames lie among the convolution steps: at `left` + `weight`, a sum that float32 would round."""

    left: Int[Array, " F"] | Int[np.ndarray, " F"]
    weight: Float[Array, " F"] | Float[np.ndarray, " F"]


def frame_grid(frames: Int[np.ndarray, " F"], num_frames: int, num_steps: int) -> Grid:
    """The places of `frames`, of `num_frames` in all, among `num_steps`; first and last coincide (align corners)."""
    left, rest = np.divmod(frames.astype(np.int64) * (num_steps - 1), max(num_frames - 1, 1))
    return Grid(left.astype(np.int32), (rest / max(num_frames - 1, 1)).astype(np.float32))


def resample(features: Float[Array, "B S C"], grid: Grid) -> Float[Array, "B F C"]:
    """Linear interpolation in time: (1 - weight)·features[left] + weight·features[left + 1]."""
    weight = jnp.asarray(grid.weight, features.dtype)[:, None]
    right = jnp.minimum(grid.left + 1, features.shape[1] - 1)
    return (1 - weight) * features[:, grid.left] + weight * features[:, right]


def first_layer_moments(
    kernel: Float[np.ndarray, "K 1 C"], stride: int, read: Callable[[int, int], np.ndarray], num_samples: int
) -> Moments:
    """The first layer's moments over a whole track, [1, C], from `read(start, stop)` of its samples, block by block.

    That layer is linear and has no bias. So with μ and Σ the mean and the covariance of its patches of K samples, the
    outputs of a channel with weights w have the mean w·μ and the variance wᵀΣw, and no output need be computed.
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


def layer_norm(name: str) -> nn.LayerNorm:
    """A LayerNorm with epsilon 1e-5, in float32, whose variance is taken about the mean (not as E[x²] - E[x]²)."""
    return nn.LayerNorm(epsilon=EPS, dtype=jnp.float32, use_fast_variance=False, name=name)


class TimeNorm(nn.Module):
    """Group norm with a group for each channel: every channel to mean 0 and variance 1 over time, in float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "B S C"], moments: Moments | None) -> Float[Array, "B S C"]:
        """`x` with its moments taken out, or with `moments`, those of the whole track, where `x` is a part of it."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        mean, variance = moments or (x.mean(1), x.var(1))
        return (x - mean[:, None]) * (jax.lax.rsqrt(variance + EPS)[:, None] * scale) + bias


class FeatureExtractor(nn.Module):
    """Section 2, feature encoder: convolutions without bias or padding, GELU after each."""

    sizes: Wav2Vec2Sizes
    dtype: DTypeLike

    @nn.compact
    def __call__(self, samples: Float[Array, "B N"], moments: Moments | None) -> Float[Array, "B S C"]:
        """The features of the convolution steps. `moments`: those of the whole track, where `samples` is a part of it."""
        x = samples[..., None].astype(self.dtype)
        for i, (kernel, stride) in enumerate(zip(self.sizes.conv_kernels, self.sizes.conv_strides, strict=True)):
            x = nn.Conv(
                self.sizes.conv_width, (kernel,), (stride,), "VALID", use_bias=False, dtype=self.dtype, name=f"conv_{i}"
            )(x)
            if i == 0:
                x = TimeNorm(name="norm")(x, moments).astype(self.dtype)
            x = nn.gelu(x, approximate=False)
        return x


class FeatureProjection(nn.Module):
    """LayerNorm and a projection to the transformer's width."""

    sizes: Wav2Vec2Sizes
    dtype: DTypeLike

    @nn.compact
    def __call__(self, features: Float[Array, "B F C"]) -> Float[Array, "B F D"]:
        """The features of each frame at the transformer's width."""
        return nn.Dense(self.sizes.width, dtype=self.dtype, name="projection")(layer_norm("norm")(features))


class PositionalConv(nn.Module):
    """Relative positions as a grouped convolution and GELU (section 2, contextualized representations).

    Its kernel is gain·v/|v|, with |v| taken for each place of the kernel (weight norm, arXiv 1602.07868).
    """

    sizes: Wav2Vec2Sizes
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B F D"]) -> Float[Array, "B F D"]:
        """What is to be added to the frames `x`, of the same shape."""
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
            padding=[(size // 2, (size - 1) // 2)],  # an even kernel would give one frame too many
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=groups,
        )
        return nn.gelu(x + bias.astype(self.dtype), approximate=False)


class Block(nn.Module):
    """A transformer layer with the norms after the sums. Its output is also handed out, as the scan's result."""

    sizes: Wav2Vec2Sizes
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "B F D"], mask: Bool[Array, "B F"] | None
    ) -> tuple[Float[Array, "B F D"], Float[Array, "B F D"]]:
        """One layer on the frames: its output, carried on and handed out. Frames that `mask` leaves out are unheard."""
        dense = lambda width, name: nn.Dense(width, dtype=self.dtype, name=name)
        heads = lambda y: y.reshape(*y.shape[:-1], self.sizes.heads, -1)
        q, k, v = (heads(dense(self.sizes.width, name)(x)) for name in ("q", "k", "v"))
        keys = None if mask is None else mask[:, None, None]
        seen = jax.nn.dot_product_attention(q, k, v, mask=keys).reshape(x.shape)
        x = layer_norm("norm1")(x + dense(self.sizes.width, "out")(seen)).astype(self.dtype)
        hidden = nn.gelu(dense(self.sizes.mlp, "fc1")(x), approximate=False)
        x = layer_norm("norm2")(x + dense(self.sizes.width, "fc2")(hidden)).astype(self.dtype)
        return x, x


class Encoder(nn.Module):
    """Positions, a norm, and the layers; the outputs of all of them."""

    sizes: Wav2Vec2Sizes
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B F D"], mask: Bool[Array, "B F"] | None) -> Float[Array, "B F layers D"]:
        """The outputs of all layers. Frames that `mask` leaves out are zeros to begin with, and unheard."""
        if mask is not None:
            x = jnp.where(mask[..., None], x, 0)  # beyond the track the convolution has to meet its own zero padding
        x = x + PositionalConv(self.sizes, self.dtype, name="positions")(x)
        x = layer_norm("norm")(x).astype(self.dtype)
        blocks = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            out_axes=2,
            length=self.sizes.layers,
        )
        return blocks(self.sizes, self.dtype, name="blocks")(x, mask)[1]


class Wav2Vec2(nn.Module):
    """Sound with mean 0 and variance 1 at 16 kHz -> the outputs of all layers for each video frame."""

    sizes: Wav2Vec2Sizes
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Makes the three parts, which `convolve` (the first) and `encode` (the others) run."""
        self.feature_extractor = FeatureExtractor(self.sizes, self.dtype)
        self.feature_projection = FeatureProjection(self.sizes, self.dtype)
        self.encoder = Encoder(self.sizes, self.dtype)

    def convolve(self, samples: Float[Array, "B N"], moments: Moments | None = None) -> Float[Array, "B S C"]:
        """The convolutions' features. `moments`: those of the whole track, where `samples` is a part of it."""
        return self.feature_extractor(samples, moments)

    def encode(
        self, features: Float[Array, "B F C"], mask: Bool[Array, "B F"] | None = None
    ) -> Float[Array, "B F layers D"]:
        """All layers' outputs. `mask` is False for frames outside the track; what comes out there means nothing."""
        return self.encoder(self.feature_projection(features), mask)

    def __call__(self, samples: Float[Array, "B N"], num_frames: int) -> Float[Array, "B F layers D"]:
        """A whole track. The features go to the video's rate BEFORE the transformer, unlike in the original."""
        features = self.convolve(samples)
        return self.encode(resample(features, frame_grid(np.arange(num_frames), num_frames, features.shape[1])))
