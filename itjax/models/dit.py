"""The video diffusion transformer: Wan2.1-I2V with audio attention (arXiv 2503.20314, 2505.22647, 2508.14033)."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from itjax.config import DiTSizes
from itjax.models import layers
from itjax.models.audio_adapter import AudioAdapter
from itjax.models.dit_block import Block, BranchIndices, ConditionStates, KeysValues, Persons, modulated, voice_label
from itjax.models.rope import video_angles
from itjax.parallel.sharding import SEQUENCE, constrain, constrain_heads, device_count, sequence_shards

# B batch (guidance branches, or training examples) · T latent frames · h w latent grid · S = h/2·w/2 tokens per frame
# L = S·T · D width


# rematerialisation policies: what a training step saves of each layer for the backward pass, namely everything, the
# products with weights, or only the layer's input
REMAT_POLICIES: dict[str, Callable | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class TimeFeatures(NamedTuple):
    """Time step embeddings: `head` for the output layer, `blocks` for the modulation of each block."""

    head: Float[Array, "*n D"]
    blocks: Float[Array, "*n 6 D"]


def sinusoidal_embedding(times: Float[np.ndarray, " n"], dim: int) -> Float[np.ndarray, "n dim"]:
    """Sinusoidal embedding of times in 0..1000, cosines first, computed in float64 on the host."""
    half = dim // 2
    angles = np.outer(np.asarray(times, np.float64), 10000.0 ** (-np.arange(half) / half))
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def sinusoidal_embedding_on_device(times: Float[Array, " n"], dim: int) -> Float[Array, "n dim"]:
    """`sinusoidal_embedding` of times known only on the device, accurate to float32 rounding.

    A float32 product near 1000 is off by up to 3e-5, and so would its sine be. Therefore sine and cosine of the integer
    part come from a table, and the fraction is added as an angle: cos(a+b) = cos a · cos b - sin a · sin b.
    """
    half = dim // 2
    whole = jnp.floor(times)
    rest = (times - whole)[:, None] * (10000.0 ** (-np.arange(half) / half)).astype(np.float32)
    cos, sin = jnp.split(jnp.asarray(sinusoidal_embedding(np.arange(1001.0), dim))[whole.astype(jnp.int32)], 2, axis=1)
    cos_rest, sin_rest = jnp.cos(rest), jnp.sin(rest)
    return jnp.concatenate([cos * cos_rest - sin * sin_rest, sin * cos_rest + cos * sin_rest], axis=1)


class DiT(layers.Module):
    """The network. Its layers are one scanned `Block`, whose parameters have a leading layer axis.

    `remat`: the rematerialisation policy of `train`, a key of REMAT_POLICIES. `in_turn`: `transform` computes each layer for
    one guidance branch after another, which takes less memory.
    """

    sizes: DiTSizes
    dtype: DTypeLike = jnp.float32
    remat: str = "none"
    in_turn: bool = False

    def setup(self):
        """Creates the layers. The time embedding and the head compute in float32 regardless of `dtype`."""
        sizes = self.sizes
        dense = lambda features, dtype=self.dtype: layers.Dense(features, dtype=dtype)
        self.patch_embedding = layers.Conv(sizes.dim, sizes.patch_size, sizes.patch_size, padding="VALID", dtype=self.dtype)
        self.text_in, self.text_out = dense(sizes.dim), dense(sizes.dim)
        self.time_in, self.time_out = dense(sizes.dim, jnp.float32), dense(sizes.dim, jnp.float32)
        self.time_projection = dense(6 * sizes.dim, jnp.float32)
        self.image_norm_in, self.image_norm_out = (layers.LayerNorm(1e-5, dtype=jnp.float32) for _ in range(2))
        self.image_in, self.image_out = dense(sizes.clip_dim), dense(sizes.dim)
        self.audio_adapter = AudioAdapter(sizes.audio, self.dtype)
        stacked = {"variable_axes": {"params": 0, "intermediates": 0}, "split_rngs": {"params": True}}
        stacked["length"] = sizes.num_layers
        shared = nn.broadcast
        methods = {
            "keys_values": stacked | {"in_axes": shared},
            "in_turn" if self.in_turn else "__call__": stacked | {"in_axes": (0, shared, shared, shared, shared, 0)},
            "from_states": stacked | {"in_axes": (shared,) * 4},
        }
        block = Block
        if self.remat != "none":  # prevent_cse is not needed: inside a scan, CSE cannot undo the rematerialisation
            block = nn.remat(Block, methods=["from_states"], prevent_cse=False, policy=REMAT_POLICIES[self.remat])
        self.blocks = nn.scan(block, methods=methods)(sizes, self.dtype)
        self.head_modulation = self.param("head_modulation", nn.initializers.normal(sizes.dim**-0.5), (2, sizes.dim))
        self.head = dense(sizes.out_dim * int(np.prod(sizes.patch_size)), jnp.float32)

    def time_features(self, sinusoids: Float[Array, "n F"]) -> TimeFeatures:
        """Embeds `sinusoidal_embedding(times)` in float32. It depends on nothing else, so all steps are embedded at once."""
        head = self.time_out(nn.silu(self.time_in(sinusoids)))
        blocks = self.time_projection(nn.silu(head))
        return TimeFeatures(head, blocks.reshape(*blocks.shape[:-1], 6, self.sizes.dim))

    def states(
        self,
        text: Float[Array, "U X Dt"],
        clip: Float[Array, "I Y Dc"],
        windows: Float[Array, "V P F W N C"],
        labelled: Float[Array, " V"] | None = None,
    ) -> ConditionStates:
        """Embeds distinct prompts, reference images and voices; every layer computes its keys and values from the result.

        Args:
            text: UMT5 states, zero beyond each prompt's end (the zeros are attended to, as in the official code).
            clip: CLIP tokens of the reference.
            windows: speech features around each frame, for each of P persons.
            labelled: with two persons, 1 if a voice's keys are rotated by their person's label, 0 if not (silence).
        """
        text = self.text_out(nn.gelu(self.text_in(text.astype(self.dtype)), approximate=True))
        image = self.image_in(self.image_norm_in(clip).astype(self.dtype))
        image = self.image_norm_out(self.image_out(nn.gelu(image, approximate=False))).astype(self.dtype)
        voices, persons = windows.shape[:2]
        audio = self.audio_adapter(windows.reshape(-1, *windows.shape[2:]).astype(self.dtype))
        tokens = audio.shape[2]
        # the tokens of all persons are concatenated within each frame
        audio = audio.reshape(voices, persons, *audio.shape[1:]).swapaxes(1, 2)
        audio = audio.reshape(voices, audio.shape[1], persons * tokens, -1)
        voice_labels = jnp.asarray([voice_label(person) for person in range(persons)])
        labels = None if labelled is None else jnp.outer(labelled, jnp.repeat(voice_labels, tokens))
        return ConditionStates(text, image, audio, labels)

    def keys_values(self, text: Array, clip: Array, windows: Array, labelled: Array | None = None) -> KeysValues:
        """K and V of every layer, from the arguments of `states`."""
        keys_values = self.blocks.keys_values(None, self.states(text, clip, windows, labelled))[1]
        return jax.tree.map(constrain_heads, keys_values)

    def embed(self, latents: Float[Array, "B T h w C"], condition: Float[Array, "B T h w Cc"]) -> Float[Array, "B L D"]:
        """Embeds the noisy latents, mask and reference latents as space-major tokens, padded to a multiple of the shards."""
        x = self.patch_embedding(jnp.concatenate([latents, condition], axis=-1).astype(self.dtype))
        batch, frames, height, width, dim = x.shape
        x = x.reshape(batch, frames, height * width, dim).swapaxes(1, 2)
        x = jnp.pad(x, ((0, 0), (0, -height * width % sequence_shards()), (0, 0), (0, 0)))
        return constrain(x.reshape(batch, -1, dim), "data", SEQUENCE, None)

    def transform(
        self,
        x: Float[Array, "#B L D"],
        grid: tuple[int, int, int],
        time: Float[Array, "#B 6 D"],
        kv: KeysValues,
        branches: BranchIndices,
        persons: Persons | None = None,
    ) -> Float[Array, "B L D"]:
        """Applies all blocks to the tokens of a latent `grid` (T, h/2, w/2), one set for all branches or one for each."""
        batch = len(branches.text)
        # The branches of a video part in the first layer's attention to the text. On a mesh, each layer is computed for all
        # of them: a conditional could keep the compiler from gathering the next weights beside self-attention.
        alike = None if len(x) == batch or device_count() > 1 else jnp.arange(self.sizes.num_layers) == 0
        x = jnp.broadcast_to(x, (batch, *x.shape[1:]))
        blocks = self.blocks.in_turn if self.in_turn else self.blocks
        return blocks(x, kv, time, self.angles(grid), branches, persons, alike)[0]

    def angles(self, grid: tuple[int, int, int]) -> Float[Array, "tokens d2"]:
        """Rotary angles of the tokens of a latent `grid` (T, h/2, w/2), without mesh padding."""
        return video_angles(*grid, self.sizes.head_dim).reshape(-1, self.sizes.head_dim // 2)

    def unembed(
        self, x: Float[Array, "B L D"], grid: tuple[int, int, int], time: Float[Array, "#B D"]
    ) -> Float[Array, "B T h w C"]:
        """Tokens to latents: adaLN, Linear, unpatchify."""
        frames, height, width = grid
        modulation = (self.head_modulation.astype(jnp.float32) + time[:, None])[:, :, None]
        x = self.head(modulated(x, modulation[:, 0], modulation[:, 1], self.sizes.eps, jnp.float32))
        x = x.reshape(x.shape[0], -1, frames, x.shape[-1])[:, : height * width]
        _, p, q = self.sizes.patch_size
        x = x.reshape(-1, height, width, frames, p, q, self.sizes.out_dim)
        x = x.transpose(0, 3, 1, 4, 2, 5, 6)
        return x.reshape(-1, frames, height * p, width * q, self.sizes.out_dim)

    def __call__(
        self,
        latents: Float[Array, "#B T h w C"],
        condition: Float[Array, "#B T h w Cc"],
        time: TimeFeatures,
        kv: KeysValues,
        branches: BranchIndices,
        persons: Persons | None = None,
    ) -> Float[Array, "B T h w C"]:
        """Predicts the velocity, noise - data, in float32.

        `latents` are noisy; `condition` is the mask and the latents of the reference; `kv` comes from `keys_values`.
        """
        grid = self.token_grid(latents.shape)
        x = self.transform(self.embed(latents, condition), grid, time.blocks, kv, branches, persons)
        return self.unembed(x, grid, time.head)

    def train(
        self,
        latents: Float[Array, "B T h w C"],
        condition: Float[Array, "B T h w Cc"],
        times: Float[Array, " B"],
        text: Float[Array, "B X Dt"],
        clip: Float[Array, "B Y Dc"],
        windows: Float[Array, "B P F W N Ca"],
        persons: Persons | None = None,
    ) -> Float[Array, "B T h w C"]:
        """Predicts the velocity, noise - data, in float32, for examples with their own times (0..1000) and conditions.

        Each layer computes its own keys and values: those of a whole batch for all layers would not fit.
        """
        grid = self.token_grid(latents.shape)
        time = self.time_features(sinusoidal_embedding_on_device(times, self.sizes.freq_dim))
        states = self.states(text, clip, windows, None if persons is None else persons.labelled)
        x = self.embed(latents, condition)
        x = self.blocks.from_states(x, states, time.blocks, self.angles(grid), persons)[0]
        return self.unembed(x, grid, time.head)

    def token_grid(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(T, h/2, w/2) of latents [B, T, h, w, C]."""
        frames, height, width = (n // p for n, p in zip(shape[1:4], self.sizes.patch_size, strict=True))
        return frames, height, width

    def tokens_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """[B, L, D] of the tokens of latents [B, T, h, w, C], including mesh padding."""
        frames, height, width = self.token_grid(shape)
        positions = height * width + -height * width % sequence_shards()
        return shape[0], positions * frames, self.sizes.dim

    def init_all(self, latents, condition, sinusoids, text, clip, windows):
        """Uses every parameter once, for `init`."""
        time = self.time_features(sinusoids)
        one = jnp.zeros(latents.shape[0], jnp.int32)
        return self(latents, condition, time, self.keys_values(text, clip, windows), BranchIndices(one, one))


def init(sizes: DiTSizes, key: Array) -> dict:
    """Random parameters, from the default initializers of Flax's layers."""
    audio = sizes.audio
    inputs = (
        jnp.zeros((1, 2, 4, 4, sizes.out_dim)),
        jnp.zeros((1, 2, 4, 4, sizes.in_dim - sizes.out_dim)),
        jnp.zeros((1, sizes.freq_dim)),
        jnp.zeros((1, sizes.text_len, sizes.text_dim)),
        jnp.zeros((1, 257, sizes.clip_dim)),
        jnp.zeros((1, 1, 1 + audio.frames_per_latent, audio.window, audio.layers, audio.channels)),
    )
    return DiT(sizes).init(key, *inputs, method="init_all")["params"]


@cache
def abstract_parameters(sizes: DiTSizes) -> dict:
    """Shapes of all parameters, without allocating. The result is cached: do not modify it."""
    return jax.eval_shape(lambda: init(sizes, jax.random.key(0)))
