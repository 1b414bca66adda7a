"""Maps speech features around each video frame to audio tokens of each latent frame (MultiTalk, arXiv 2505.22647)."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from itjax.config import AudioAdapterSizes
from itjax.models import layers

# P tracks · F pixel frames · T latent frames · T1 = T-1 · W window · N layers of the speech encoder · C its width
# A audio tokens per latent frame · D their width


def latent_windows(windows: Float[Array, "P F W N C"], frames_per_latent: int = 4) -> Float[Array, "P T1 V N C"]:
    """Windows of all latent frames but the first: V = 8 feature vectors each.

    Of the 4 pixel frames of a latent frame, the first contributes window positions 0..2, the middle ones position 2, and
    the last one positions 2..4.
    """
    tracks, frames, window, *rest = windows.shape
    groups = windows[:, 1:].reshape(tracks, (frames - 1) // frames_per_latent, frames_per_latent, window, *rest)
    middle = window // 2
    return jnp.concatenate([groups[:, :, 0, : middle + 1], groups[:, :, 1:-1, middle], groups[:, :, -1, middle:]], axis=2)


class AudioAdapter(layers.Module):
    """Speech features to audio tokens (MultiTalk, arXiv 2505.22647): three projections with ReLU in between, and a norm.

    The first latent frame has its own first projection ("proj1"), because it sees the window of a single frame.
    """

    sizes: AudioAdapterSizes
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, windows: Float[Array, "P F W N C"]) -> Float[Array, "P T A D"]:
        """Maps windows of speech features around F = 4·(T-1)+1 frames to A tokens for each of T latent frames."""
        sizes = self.sizes
        dense = lambda features, name: layers.Dense(features, dtype=self.dtype, name=name)
        later = latent_windows(windows, sizes.frames_per_latent)
        flat = lambda x: x.reshape(*x.shape[:2], -1)
        hidden = [dense(sizes.intermediate_dim, "proj1")(flat(windows[:, :1]))]
        hidden += [dense(sizes.intermediate_dim, "proj1_vf")(flat(later))]
        x = nn.relu(jnp.concatenate(hidden, axis=1))
        x = nn.relu(dense(sizes.intermediate_dim, "proj2")(x))
        x = dense(sizes.context_tokens * sizes.output_dim, "proj3")(x)
        x = x.reshape(*x.shape[:2], sizes.context_tokens, sizes.output_dim)
        return layers.LayerNorm(1e-5, dtype=jnp.float32, name="norm")(x).astype(self.dtype)
