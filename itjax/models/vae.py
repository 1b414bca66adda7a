"""The causal video VAE of Wan2.1 (arXiv 2503.20314, section 4.1): encodes and decodes one latent frame at a time.

All temporal convolutions are causal, so the network runs as a recurrence: a `cache` holds the last input frames of each
convolution. The first latent frame represents one pixel frame, each later one four.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from itjax.config import VaeSizes
from itjax.models import layers
from itjax.models.attention import cross_attention
from itjax.parallel.sharding import SEQUENCE, constrain

# B batch · F pixel frames, 1+4(T-1) · T latent frames · H W pixels · h w = H/8 W/8 · C channels

LATENT_MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)  # fmt: skip
LATENT_STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
       3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)  # fmt: skip


class Conv3D(layers.Module):
    """3-D convolution without padding in time, computed in 2-D: the frames of a window are concatenated along channels.

    This compiles to faster code: three to eleven times on CPU (benchmarks/results/cpu_chunk.md), not measured elsewhere.
    """

    features: int
    kernel_size: tuple[int, int, int]
    dtype: DTypeLike
    time_stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "B F H W C"]) -> Float[Array, "B G H W D"]:
        """Returns G = (F - kernel_size[0]) // time_stride + 1 frames; zero padding keeps height and width."""
        taps, height, width = self.kernel_size
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (*self.kernel_size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        last = x.shape[1] - taps  # first frame of the last window
        shifted = [x[:, tap : last + tap + 1 : self.time_stride] for tap in range(taps)]
        frames = jnp.concatenate(shifted, axis=-1).astype(self.dtype)
        kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(height, width, -1, self.features).astype(self.dtype)
        y = jax.lax.conv_general_dilated(
            frames.reshape(-1, *frames.shape[2:]), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y.reshape(*frames.shape[:-1], self.features) + bias.astype(self.dtype)


class CausalConv(layers.Module):
    """Causal 3-D convolution; the previous frames come from its cache (zeros at the start)."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B F H W C"]) -> Float[Array, "B F H W D"]:
        """Returns as many frames as it gets. The last two inputs stay in the cache for the next call."""
        shape = (x.shape[0], 2, *x.shape[2:])
        before = self.variable("cache", "before", jnp.zeros, shape, x.dtype)
        x = jnp.concatenate([before.value, x], axis=1)
        before.value = x[:, -2:]
        return Conv3D(self.features, (3, 3, 3), self.dtype, name="conv")(x)


class Norm(layers.Module):
    """x/|x|·√C·γ over channels, in float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "*b C"]) -> Float[Array, "*b C"]:
        """Normalises the channels of each position to length √C and scales them by γ."""
        gamma = self.param("gamma", nn.initializers.ones, (x.shape[-1],))
        y = x.astype(jnp.float32)
        length = jnp.maximum(jnp.linalg.norm(y, axis=-1, keepdims=True), 1e-12)
        return (y / length * x.shape[-1] ** 0.5 * gamma.astype(jnp.float32)).astype(x.dtype)


class ResidualBlock(layers.Module):
    """Norm, SiLU and causal convolution, twice, plus the input (through a 1x1x1 convolution if the channels change)."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B F H W C"]) -> Float[Array, "B F H W D"]:
        """Returns the frames with `features` channels."""
        y = CausalConv(self.features, self.dtype, name="conv1")(nn.silu(Norm(name="norm1")(x)))
        y = CausalConv(self.features, self.dtype, name="conv2")(nn.silu(Norm(name="norm2")(y)))
        if x.shape[-1] != self.features:
            x = Conv3D(self.features, (1, 1, 1), self.dtype, name="shortcut")(x)
        return x + y


class AttentionBlock(layers.Module):
    """Single-head self-attention within each frame."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B F H W C"]) -> Float[Array, "B F H W C"]:
        """Returns the frames plus the attention output."""
        channels = x.shape[-1]
        qkv = layers.Conv(3 * channels, (1, 1), dtype=self.dtype, name="to_qkv")(Norm(name="norm")(x))
        q, k, v = jnp.split(qkv.reshape(-1, x.shape[2] * x.shape[3], 1, 3 * channels), 3, axis=-1)
        y = cross_attention(q, k, v).reshape(x.shape)
        return x + layers.Conv(channels, (1, 1), dtype=self.dtype, name="proj")(y)


class MiddleBlock(layers.Module):
    """Lowest resolution of encoder and decoder: a residual block, attention, a residual block."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B F H W C"]) -> Float[Array, "B F H W C"]:
        """Returns frames of the same shape."""
        x = ResidualBlock(x.shape[-1], self.dtype, name="res1")(x)
        x = AttentionBlock(self.dtype, name="attention")(x)
        return ResidualBlock(x.shape[-1], self.dtype, name="res2")(x)


class Downsample(layers.Module):
    """Halves height and width; with `in_time` also time, from the second frame on."""

    in_time: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B F H W C"], first: bool) -> Float[Array, "B G h w C"]:
        """Returns G = F/2 frames with `in_time`, else G = F. At the start (`first`) G = (F+1)/2: the first frame is kept."""
        channels = x.shape[-1]
        padding = ((0, 1), (0, 1))
        x = layers.Conv(channels, (3, 3), 2, padding=padding, dtype=self.dtype, name="conv")(x)
        if not self.in_time:
            return x
        before = self.variable("cache", "before", jnp.zeros, (x.shape[0], 1, *x.shape[2:]), x.dtype)
        frames = x if first else jnp.concatenate([before.value, x], axis=1)
        before.value = x[:, -1:]
        if first and x.shape[1] == 1:
            return x
        halved = Conv3D(channels, (3, 1, 1), self.dtype, time_stride=2, name="time_conv")(frames)
        return jnp.concatenate([x[:, :1], halved], axis=1) if first else halved


class Upsample(layers.Module):
    """Doubles height and width and halves the channels; with `in_time` also doubles time, from the second frame on."""

    in_time: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B F h w C"], first: bool) -> Float[Array, "B G H W D"]:
        """Returns G = 2·F frames with `in_time`, else G = F. At the start (`first`) G = 2·F-1; frame 0 is not cached."""
        channels = x.shape[-1]
        if self.in_time:
            before = self.variable("cache", "before", jnp.zeros, (x.shape[0], 2, *x.shape[2:]), x.dtype)
            start, later = (x[:, :1], x[:, 1:]) if first else (None, x)
            if later.shape[1]:
                frames = jnp.concatenate([before.value, later], axis=1)
                before.value = frames[:, -2:]
                later = Conv3D(2 * channels, (3, 1, 1), self.dtype, name="time_conv")(frames)
                later = later.reshape(*later.shape[:4], 2, channels)
                later = jnp.moveaxis(later, 4, 2).reshape(x.shape[0], -1, *x.shape[2:4], channels)
                x = later if start is None else jnp.concatenate([start, later], axis=1)
        x = x.repeat(2, axis=2).repeat(2, axis=3)
        return layers.Conv(channels // 2, (3, 3), padding=1, dtype=self.dtype, name="conv")(x)


class Encoder(layers.Module):
    """Maps 1 frame (first) or 4 frames to a latent frame's moments: z_dim means and z_dim log variances, not normalised."""

    sizes: VaeSizes
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B F H W 3"], first: bool) -> Float[Array, "B T h w D"]:
        """Encodes `x`, pixels in -1..1: four frames for each latent frame. `first`: the video's start, one frame more."""
        sizes = self.sizes
        x = CausalConv(sizes.dim, self.dtype, name="conv_in")(x.astype(self.dtype))
        for level, multiplier in enumerate(sizes.multipliers):
            for i in range(sizes.num_res_blocks):
                x = ResidualBlock(sizes.dim * multiplier, self.dtype, name=f"level{level}_res{i}")(x)
            if level < len(sizes.multipliers) - 1:
                x = Downsample(sizes.time_downsample[level], self.dtype, name=f"level{level}_down")(x, first)
        x = nn.silu(Norm(name="norm_out")(MiddleBlock(self.dtype, name="middle")(x)))
        x = CausalConv(2 * sizes.z_dim, self.dtype, name="conv_out")(x)
        return Conv3D(2 * sizes.z_dim, (1, 1, 1), jnp.float32, name="to_moments")(x)


class Decoder(layers.Module):
    """Maps a latent frame (not normalised) to 1 frame (first) or 4 frames, in about -1..1."""

    sizes: VaeSizes
    dtype: DTypeLike

    @nn.compact
    def __call__(self, z: Float[Array, "B T h w C"], first: bool) -> Float[Array, "B F H W 3"]:
        """Decodes latent frames. `first`: the start of the video, whose first latent frame is one frame instead of four."""
        sizes = self.sizes
        x = Conv3D(sizes.z_dim, (1, 1, 1), jnp.float32, name="from_latent")(z).astype(self.dtype)
        x = CausalConv(sizes.dim * sizes.multipliers[-1], self.dtype, name="conv_in")(x)
        x = MiddleBlock(self.dtype, name="middle")(x)
        for level, multiplier in enumerate(reversed(sizes.multipliers)):
            for i in range(sizes.num_res_blocks + 1):
                x = ResidualBlock(sizes.dim * multiplier, self.dtype, name=f"level{level}_res{i}")(x)
            if level < len(sizes.multipliers) - 1:
                in_time = sizes.time_downsample[-1 - level]
                x = Upsample(in_time, self.dtype, name=f"level{level}_up")(x, first)
        x = nn.silu(Norm(name="norm_out")(x))
        return CausalConv(3, self.dtype, name="conv_out")(x).astype(jnp.float32)


def _split_rows(x: Float[Array, "B F H W C"]) -> Float[Array, "B F H W C"]:
    """Splits the rows over the mesh: the devices exchange only the rows at the borders, instead of weights."""
    return constrain(x, "data", None, SEQUENCE)


def _recurrence(net: layers.Module, parameters: dict, first: Array, rest: Array) -> Array:
    """Applies `net` to `first` (which fills the cache), then scans over `rest` [T-1, ...]; concatenates in time."""
    start, state = net.apply({"params": parameters}, _split_rows(first), True, mutable="cache")

    def step(cache, part):
        out, state = net.apply({"params": parameters, "cache": cache}, _split_rows(part), False, mutable="cache")
        return jax.tree.map(_split_rows, state["cache"]), _split_rows(out)

    later = jax.lax.scan(step, jax.tree.map(_split_rows, state["cache"]), rest)[1]
    later = jnp.moveaxis(later, 0, 1).reshape(start.shape[0], -1, *start.shape[2:])
    return jnp.concatenate([start, later], axis=1)


def encode(
    parameters: dict, video: Float[Array, "B F H W 3"], sizes: VaeSizes, dtype: DTypeLike = jnp.float32
) -> Float[Array, "B T h w C"]:
    """Encodes 4(T-1)+1 frames, pixels in -1..1, to normalised latents (the mean): (E(x) - MEAN) / STD, float32."""
    batch, frames, *rest = video.shape
    stride = sizes.time_stride
    later = jnp.moveaxis(video[:, 1:].reshape(batch, (frames - 1) // stride, stride, *rest), 1, 0)
    z = _recurrence(Encoder(sizes, dtype), parameters["encoder"], video[:, :1], later)[..., : sizes.z_dim]
    return (z - jnp.asarray(LATENT_MEAN)) / jnp.asarray(LATENT_STD)


def decode(
    parameters: dict, latents: Float[Array, "B T h w C"], sizes: VaeSizes, dtype: DTypeLike = jnp.float32
) -> Float[Array, "B F H W 3"]:
    """Decodes normalised latents to 4(T-1)+1 frames, clamped to -1..1, float32."""
    z = latents * jnp.asarray(LATENT_STD) + jnp.asarray(LATENT_MEAN)
    later = jnp.moveaxis(z[:, 1:, None], 1, 0)
    return jnp.clip(_recurrence(Decoder(sizes, dtype), parameters["decoder"], z[:, :1], later), -1, 1)


def encode_whole(
    parameters: dict, video: Float[Array, "B F H W 3"], sizes: VaeSizes, dtype: DTypeLike = jnp.float32
) -> tuple[Float[Array, "B T h w C"], Float[Array, "B T h w C"]]:
    """Mean and log variance of the latents of 4(T-1)+1 frames, for training: not normalised, all frames in one call.

    `encode` returns (mean - LATENT_MEAN) / LATENT_STD. This needs memory for all frames; but on CPU the backward pass of a
    convolution in a scan takes seven times as long.
    """
    moments, _ = Encoder(sizes, dtype).apply({"params": parameters["encoder"]}, video, True, mutable="cache")
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    return mean, log_variance


def decode_whole(
    parameters: dict, z: Float[Array, "B T h w C"], sizes: VaeSizes, dtype: DTypeLike = jnp.float32
) -> Float[Array, "B F H W 3"]:
    """Decodes latents that are not normalised to 4(T-1)+1 frames, for training: not clamped, all frames in one call."""
    frames, _ = Decoder(sizes, dtype).apply({"params": parameters["decoder"]}, z, True, mutable="cache")
    return frames


def abstract_parameters(sizes: VaeSizes) -> dict:
    """Shapes of all parameters, without allocating."""
    side = 2 * sizes.spatial_stride
    key = jax.random.key(0)
    frames = jax.ShapeDtypeStruct((1, sizes.time_stride, side, side, 3), jnp.float32)
    latent = jax.ShapeDtypeStruct((1, 1, 2, 2, sizes.z_dim), jnp.float32)
    init = lambda net: lambda x: net(sizes, jnp.float32).init(key, x, False)["params"]
    return {"encoder": jax.eval_shape(init(Encoder), frames), "decoder": jax.eval_shape(init(Decoder), latent)}
