"""The video diffusion transformer: Wan2.1-I2V with audio attention (arXiv 2503.20314, 2505.22647, 2508.14033)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from itjax.models.audio_adapter import AudioAdapter
from itjax.models.dit_block import VOICE_LABELS, Block, Branches, DiTSizes, KeysValues, Persons, modulated
from itjax.models.rope import video_angles
from itjax.sharding import SEQUENCE, constrain, sequence_shards

# B batch (guidance branches) · T latent frames · h w latent grid · S = h/2·w/2 tokens of a frame · L = S·T · D width


class TimeFeatures(NamedTuple):
    """What the DiT knows of the time step: `head` for the last layer, `blocks` for the modulation of each block."""

    head: Float[Array, "*n D"]
    blocks: Float[Array, "*n 6 D"]


def sinusoid(times: Float[np.ndarray, "n"], dim: int) -> Float[np.ndarray, "n dim"]:
    """Sinusoidal features of times in 0..1000, cosines first, computed in float64 on the host."""
    half = dim // 2
    angles = np.outer(np.asarray(times, np.float64), 10000.0 ** (-np.arange(half) / half))
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


class DiT(nn.Module):
    sizes: DiTSizes
    dtype: DTypeLike = jnp.float32

    def setup(self):
        sizes = self.sizes
        dense = lambda features, dtype=self.dtype: nn.Dense(features, dtype=dtype)
        self.patch_embedding = nn.Conv(sizes.dim, sizes.patch_size, sizes.patch_size, padding="VALID", dtype=self.dtype)
        self.text_in, self.text_out = dense(sizes.dim), dense(sizes.dim)
        self.time_in, self.time_out = dense(sizes.dim, jnp.float32), dense(sizes.dim, jnp.float32)
        self.time_projection = dense(6 * sizes.dim, jnp.float32)
        self.image_norm_in, self.image_norm_out = (nn.LayerNorm(1e-5, dtype=jnp.float32) for _ in range(2))
        self.image_in, self.image_out = dense(sizes.clip_dim), dense(sizes.dim)
        self.audio_adapter = AudioAdapter(sizes.audio, self.dtype)
        stacked = {"variable_axes": {"params": 0, "intermediates": 0}, "split_rngs": {"params": True}}
        stacked["length"] = sizes.num_layers
        shared = nn.broadcast
        methods = {
            "keys_values": stacked | {"in_axes": (shared,) * 4},
            "__call__": stacked | {"in_axes": (0, shared, shared, shared, shared)},
        }
        self.blocks = nn.scan(Block, methods=methods)(sizes, self.dtype)
        self.head_modulation = self.param("head_modulation", nn.initializers.normal(sizes.dim**-0.5), (2, sizes.dim))
        self.head = dense(sizes.out_dim * int(np.prod(sizes.patch_size)), jnp.float32)

    def time_features(self, sinusoids: Float[Array, "n F"]) -> TimeFeatures:
        """Features of `sinusoid(times)`, in float32: they depend on nothing else, so all steps' are made at once."""
        head = self.time_out(nn.silu(self.time_in(sinusoids)))
        blocks = self.time_projection(nn.silu(head))
        return TimeFeatures(head, blocks.reshape(*blocks.shape[:-1], 6, self.sizes.dim))

    def keys_values(
        self,
        text: Float[Array, "U X Dt"],
        clip: Float[Array, "1 Y Dc"],
        windows: Float[Array, "V P F W N C"],
        labelled: Float[Array, "V"] | None = None,
    ) -> KeysValues:
        """K and V of every layer for distinct prompts, the reference picture, and distinct voices.

        Args:
          text: UMT5 states, zero beyond each prompt's end (the zeros are attended to, as the official code does).
          clip: CLIP tokens of the reference.
          windows: speech features around each frame, for each of P persons.
          labelled: with two persons, 1 where a voice's tokens are turned by their person's label, 0 where not (silence).
        """
        text = self.text_out(nn.gelu(self.text_in(text.astype(self.dtype)), approximate=True))
        image = self.image_in(self.image_norm_in(clip).astype(self.dtype))
        image = self.image_norm_out(self.image_out(nn.gelu(image, approximate=False))).astype(self.dtype)
        voices, persons = windows.shape[:2]
        audio = self.audio_adapter(windows.reshape(-1, *windows.shape[2:]).astype(self.dtype))
        tokens = audio.shape[2]
        # both persons' tokens stand side by side in each frame
        audio = audio.reshape(voices, persons, *audio.shape[1:]).swapaxes(1, 2)
        audio = audio.reshape(voices, audio.shape[1], persons * tokens, -1)
        labels = None if labelled is None else jnp.outer(labelled, jnp.repeat(jnp.asarray(VOICE_LABELS), tokens))
        return self.blocks.keys_values(None, text, image, audio, labels)[1]

    def embed(self, latents: Float[Array, "B T h w C"], condition: Float[Array, "B T h w Cc"]) -> Float[Array, "B L D"]:
        """Tokens of the noisy latents beside mask and reference latents, space first, padded to the mesh's parts."""
        x = self.patch_embedding(jnp.concatenate([latents, condition], axis=-1).astype(self.dtype))
        batch, frames, height, width, dim = x.shape
        x = x.reshape(batch, frames, height * width, dim).swapaxes(1, 2)
        x = jnp.pad(x, ((0, 0), (0, -height * width % sequence_shards()), (0, 0), (0, 0)))
        return constrain(x.reshape(batch, -1, dim), "data", SEQUENCE, None)

    def transform(
        self,
        x: Float[Array, "B L D"],
        grid: tuple[int, int, int],
        time: Float[Array, "6 D"],
        kv: KeysValues,
        branches: Branches,
        persons: Persons | None = None,
    ) -> Float[Array, "B L D"]:
        """All blocks, on the tokens of a latent `grid` (T, h/2, w/2)."""
        frames, height, width = grid
        angles = video_angles(frames, height, width, self.sizes.head_dim).reshape(-1, self.sizes.head_dim // 2)
        return self.blocks(x, kv, time, angles, branches, persons)[0]

    def unembed(
        self, x: Float[Array, "B L D"], grid: tuple[int, int, int], time: Float[Array, "D"]
    ) -> Float[Array, "B T h w C"]:
        """Tokens to latents: adaLN, Linear, unpatchify."""
        frames, height, width = grid
        shift, scale = self.head_modulation.astype(jnp.float32) + time
        x = self.head(modulated(x, shift, scale, self.sizes.eps, jnp.float32))
        x = x.reshape(x.shape[0], -1, frames, x.shape[-1])[:, : height * width]
        _, p, q = self.sizes.patch_size
        x = x.reshape(-1, height, width, frames, p, q, self.sizes.out_dim)
        x = x.transpose(0, 3, 1, 4, 2, 5, 6)
        return x.reshape(-1, frames, height * p, width * q, self.sizes.out_dim)

    def __call__(
        self,
        latents: Float[Array, "B T h w C"],
        condition: Float[Array, "B T h w Cc"],
        time: TimeFeatures,
        kv: KeysValues,
        branches: Branches,
        persons: Persons | None = None,
    ) -> Float[Array, "B T h w C"]:
        """noise - data, as the network predicts it from noisy latents, reference and its keys and values (float32)."""
        grid = self.token_grid(latents.shape)
        x = self.transform(self.embed(latents, condition), grid, time.blocks, kv, branches, persons)
        return self.unembed(x, grid, time.head)

    def token_grid(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(T, h/2, w/2) of latents [B, T, h, w, C]."""
        frames, height, width = (n // p for n, p in zip(shape[1:4], self.sizes.patch_size, strict=True))
        return frames, height, width

    def tokens_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """[B, L, D] of the tokens of latents [B, T, h, w, C], with what the mesh pads."""
        frames, height, width = self.token_grid(shape)
        positions = height * width + -height * width % sequence_shards()
        return shape[0], positions * frames, self.sizes.dim

    def everything(self, latents, condition, sinusoids, text, clip, windows):
        """One pass through every parameter; `init` goes this way."""
        time = jax.tree.map(lambda x: x[0], self.time_features(sinusoids))
        one = jnp.zeros(latents.shape[0], jnp.int32)
        return self(latents, condition, time, self.keys_values(text, clip, windows), Branches(one, one))


def abstract_parameters(sizes: DiTSizes) -> dict:
    """Shapes of all parameters, without allocating."""
    audio = sizes.audio
    spec = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    inputs = (
        spec(1, 2, 4, 4, sizes.out_dim),
        spec(1, 2, 4, 4, sizes.in_dim - sizes.out_dim),
        spec(1, sizes.freq_dim),
        spec(1, sizes.text_len, sizes.text_dim),
        spec(1, 257, sizes.clip_dim),
        spec(1, 1, 1 + audio.frames_per_latent, audio.window, audio.layers, audio.channels),
    )
    init = lambda *args: DiT(sizes).init(jax.random.key(0), *args, method="everything")
    return jax.eval_shape(init, *inputs)["params"]
