"""Rotary position embeddings (arXiv 2104.09864) on interleaved pairs, of video positions and of labels (L-RoPE)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# B batch · L tokens · T latent frames · S tokens per frame · H heads · d head dimension · d2 = d/2


def video_angles(frames: int, height: int, width: int, head_dim: int) -> Float[Array, "S T d2"]:
    """Angles of every token (y·width + x, t): head_dim/2 pairs, divided among time, height and width as in Wan2.1.

    Height and width get d/6 pairs each (integer division), time the rest; theta is 10000. The per-axis tables are
    computed in float64.
    """
    pairs = head_dim // 6
    axis_angles = lambda n, count: np.outer(np.arange(n), 10000.0 ** (-np.arange(count) / count)).astype(np.float32)
    time, y, x = axis_angles(frames, head_dim // 2 - 2 * pairs), axis_angles(height, pairs), axis_angles(width, pairs)
    grid = (height, width, frames)
    parts = time[None, None], y[:, None, None], x[None, :, None]
    angles = jnp.concatenate([jnp.broadcast_to(jnp.asarray(part), (*grid, part.shape[-1])) for part in parts], -1)
    return angles.reshape(height * width, frames, head_dim // 2)


def label_angles(labels: Float[Array, "*n"], head_dim: int) -> Float[Array, "*n d2"]:
    """Angles of labels: 1-D rotary embedding over the whole head (MultiTalk, arXiv 2505.22647, section 3.3)."""
    frequencies = (10000.0 ** (-np.arange(0, head_dim, 2) / head_dim)).astype(np.float32)
    return labels[..., None] * frequencies


def rotate(x: Float[Array, "*b L H d"], angles: Float[Array, "*#b L d2"]) -> Float[Array, "*b L H d"]:
    """Rotates each pair (x[2i], x[2i+1]) by angles[i], in float32."""
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    cos, sin = jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]
    real, imaginary = pairs[..., 0], pairs[..., 1]
    rotated = jnp.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], axis=-1)
    return rotated.reshape(x.shape).astype(x.dtype)
