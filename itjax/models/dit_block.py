"""One layer of the DiT: self-attention, text and image attention, audio attention, MLP. No guidance or chunking here.

Tokens are space-major (token = position · T + frame): sharding the token axis then splits space, every device holds all
frames of its positions, and audio attention stays local.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from itjax.config import DiTSizes
from itjax.models import layers
from itjax.models.attention import cross_attention, self_attention
from itjax.models.rope import label_angles, rotate
from itjax.parallel.sharding import SEQUENCE, constrain

# B batch (guidance branches, or training examples) · U distinct prompts · I images · V distinct voices · T latent frames
# S tokens per frame · L = S·T · N layers · H heads · d head dimension · D width · A audio tokens per frame
# G persons and the background


class ConditionStates(NamedTuple):
    """Inputs from which every layer computes the keys and values of its cross-attention.

    `voice_labels` rotates the audio keys to tell two persons apart; None with one person.
    """

    text: Float[Array, "U X D"]
    image: Float[Array, "I Y D"]
    audio: Float[Array, "V T A E"]
    voice_labels: Float[Array, "V A"] | None


class KeysValues(NamedTuple):
    """Keys and values of cross-attention, which are the same for all time steps. Stacked over layers (N) outside a block."""

    text_k: Float[Array, "*N U X H d"]
    text_v: Float[Array, "*N U X H d"]
    image_k: Float[Array, "*N I Y H d"]
    image_v: Float[Array, "*N I Y H d"]
    audio_k: Float[Array, "*N V T A H d"]
    audio_v: Float[Array, "*N V T A H d"]


class Persons(NamedTuple):
    """Two persons in one image: a mask of each, then the background's; `labelled` is 1 for branches that use labels."""

    masks: Float[Array, "*#B G S"]
    labelled: Float[Array, " B"]


class BranchIndices(NamedTuple):
    """Index of each guidance branch's prompt and voice (not used in training, where every example has its own)."""

    text: Int[Array, " B"]
    audio: Int[Array, " B"]


BACKGROUND_LABEL = 12.0  # between the label ranges of the first two persons


def person_span(person: int) -> tuple[float, float]:
    """Label range of the tokens of a person (0, 1 ...): 0..4, 20..24 (L-RoPE: MultiTalk, section 3.3)."""
    return 20.0 * person, 20.0 * person + 4.0


def voice_label(person: int) -> float:
    """The label of a person's voice: the midpoint of the person's label range."""
    return sum(person_span(person)) / 2


def person_labels(attention_map: Float[Array, "B G L"], valid: Bool[Array, " L"]) -> Float[Array, "B L"]:
    """The label of each token (L-RoPE: MultiTalk, arXiv 2505.22647, section 3.3).

    The class with the largest attention selects the label range; the min-max scaled attention is the position within it.
    """
    low = jnp.min(jnp.where(valid, attention_map, jnp.inf), axis=2, keepdims=True)
    high = jnp.max(jnp.where(valid, attention_map, -jnp.inf), axis=2, keepdims=True)
    scaled = (attention_map - low) / (high - low + 1e-8)
    spans = [person_span(person) for person in range(attention_map.shape[1] - 1)]
    of_person = [scaled[:, i] * (end - start) + start for i, (start, end) in enumerate(spans)]
    background = jnp.full_like(scaled[:, -1], BACKGROUND_LABEL)
    labels = jnp.stack([*of_person, background], axis=1)
    return jnp.take_along_axis(labels, jnp.argmax(attention_map, axis=1, keepdims=True), axis=1)[:, 0]


def modulated(x: Array, shift: Array, scale: Array, eps: float, dtype: DTypeLike) -> Array:
    """LN(x)·(1 + scale) + shift in float32 (adaLN, arXiv 2212.09748)."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + eps)
    return (x * (1 + scale) + shift).astype(dtype)


def gated(x: Array, y: Array, gate: Array, dtype: DTypeLike) -> Array:
    """The residual x + y·gate in float32 (adaLN-Zero, arXiv 2212.09748)."""
    return (x.astype(jnp.float32) + y.astype(jnp.float32) * gate).astype(dtype)


class Dense(layers.Module):
    """A Linear that adds its low-rank update (LoRA, arXiv 2106.09685, eq. 3, with α = r) if the parameters have one."""

    features: int
    dtype: DTypeLike

    def setup(self):
        """Creates the Linear."""
        self.linear = layers.Dense(self.features, dtype=self.dtype)
        nn.share_scope(self, self.linear)  # kernel and bias are stored as this module's own parameters

    def __call__(self, x: Float[Array, "*b E"]) -> Float[Array, "*b F"]:
        """x·W + b, plus x·down·up if the layer has an update."""
        y = self.linear(x)
        if not self.has_variable("params", "lora_down"):
            return y
        down: Array = self.get_variable("params", "lora_down").astype(y.dtype)
        up: Array = self.get_variable("params", "lora_up").astype(y.dtype)
        return y + (x.astype(y.dtype) @ down) @ up


class Block(layers.Module):
    """One layer of the DiT. Norms, modulation and gates are computed in float32, matrix products in `dtype`."""

    sizes: DiTSizes
    dtype: DTypeLike = jnp.float32

    def setup(self):
        """Creates the layers and the modulation: shift, scale and gate of self-attention, then those of the MLP."""
        sizes = self.sizes
        dense = lambda features: Dense(features, dtype=self.dtype)
        rms = lambda: layers.RMSNorm(epsilon=sizes.eps, dtype=jnp.float32)
        self.modulation = self.param("modulation", nn.initializers.normal(sizes.dim**-0.5), (6, sizes.dim))
        self.q, self.k, self.v, self.o = (dense(sizes.dim) for _ in range(4))
        self.norm_q, self.norm_k = rms(), rms()
        self.norm3 = layers.LayerNorm(sizes.eps, dtype=jnp.float32)
        self.cross_q, self.cross_k, self.cross_v, self.cross_o = (dense(sizes.dim) for _ in range(4))
        self.cross_k_img, self.cross_v_img = dense(sizes.dim), dense(sizes.dim)
        self.cross_norm_q, self.cross_norm_k, self.cross_norm_k_img = rms(), rms(), rms()
        self.norm_x = layers.LayerNorm(sizes.eps, dtype=jnp.float32)
        self.audio_q, self.audio_kv, self.audio_o = dense(sizes.dim), dense(2 * sizes.dim), dense(sizes.dim)
        self.ffn_in, self.ffn_out = dense(sizes.ffn_dim), dense(sizes.dim)

    def heads(self, x: Float[Array, "*b D"]) -> Float[Array, "*b H d"]:
        """Splits the last axis into heads and casts to `dtype`."""
        return x.reshape(*x.shape[:-1], self.sizes.num_heads, self.sizes.head_dim).astype(self.dtype)

    def per_token(self, layer: layers.Module, x: Float[Array, "B L D"]) -> Float[Array, "B L E"]:
        """Applies a layer to every token. Its output is sharded like the tokens, so its weights are gathered instead."""
        return constrain(layer(x), "data", SEQUENCE, None)

    def keys_values(self, _, states: ConditionStates) -> tuple[None, KeysValues]:
        """K and V of text, image and audio."""
        audio_k, audio_v = map(self.heads, jnp.split(self.audio_kv(states.audio), 2, axis=-1))
        if states.voice_labels is not None:
            audio_k = rotate(audio_k, label_angles(states.voice_labels, self.sizes.head_dim)[:, None])
        return None, KeysValues(
            text_k=self.heads(self.cross_norm_k(self.cross_k(states.text))),
            text_v=self.heads(self.cross_v(states.text)),
            image_k=self.heads(self.cross_norm_k_img(self.cross_k_img(states.image))),
            image_v=self.heads(self.cross_v_img(states.image)),
            audio_k=audio_k,
            audio_v=audio_v,
        )

    def from_states(
        self, x, states: ConditionStates, time, angles, persons: Persons | None
    ) -> tuple[Float[Array, "B L D"], None]:
        """Applies the layer with keys and values computed here, one set per example (training)."""
        return self(x, self.keys_values(None, states)[1], time, angles, None, persons)

    def __call__(
        self,
        x: Float[Array, "B L D"],
        kv: KeysValues,
        time: Float[Array, "#B 6 D"],
        angles: Float[Array, "tokens d2"],
        branches: BranchIndices | None,
        persons: Persons | None,
        alike: Bool[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B L D"], None]:
        """Self-attention, text and image attention, audio attention, MLP; the first and last are gated by the time step.

        `alike` says that all branches have the same tokens: what comes before the text is then computed once, and attention
        to the text once for each prompt.
        """
        modulation = (self.modulation.astype(jnp.float32) + time)[:, :, None]
        prompts = None if branches is None else branches.text

        def before_audio(block: Block, x: Array) -> tuple[Array, Array | None]:
            return block.before_audio(x, modulation[:, :3], angles, kv, prompts, persons)

        def before_audio_alike(block: Block, x: Array) -> tuple[Array, Array | None]:
            of_prompts, labels = block.before_audio(x[:1], modulation[:, :3], angles, kv, None, persons)
            return of_prompts[prompts], labels

        if alike is None:
            x, labels = before_audio(self, x)
        else:
            x, labels = nn.cond(alike, before_audio_alike, before_audio, self, x)
        shift, scale, gate = (modulation[:, i] for i in range(3, 6))
        with jax.named_scope("audio_attention"):
            x = x + self.attend_audio(self.norm_x(x).astype(self.dtype), kv, branches, labels)
        with jax.named_scope("mlp"):
            y = modulated(x, shift, scale, self.sizes.eps, self.dtype)
            y = self.per_token(self.ffn_out, nn.gelu(self.per_token(self.ffn_in, y), approximate=True))
            x = gated(x, y, gate, self.dtype)
        self.sow("intermediates", "output", x)
        return x, None

    def in_turn(
        self, x, kv: KeysValues, time, angles, branches: BranchIndices, persons: Persons | None, _alike=None
    ) -> tuple[Float[Array, "B L D"], None]:
        """The same for one branch after another: activations of one branch at a time, with the layer's weights at hand."""

        def one(block: Block, _, branch) -> tuple[None, Float[Array, "L D"]]:
            tokens, indices, labelled = jax.tree.map(lambda part: part[None], branch)
            of_one = None if persons is None else Persons(persons.masks, labelled)
            return None, block(tokens, kv, time, angles, indices, of_one)[0][0]

        labelled = None if persons is None else persons.labelled
        scan = nn.scan(one, variable_broadcast="params", split_rngs={"params": False})
        return scan(self, None, (x, branches, labelled))[1], None

    def before_audio(
        self, x: Float[Array, "#B L D"], modulation: Float[Array, "#B 3 1 D"], angles, kv: KeysValues, prompts, persons
    ) -> tuple[Float[Array, "B L D"], Float[Array, "branches L"] | None]:
        """Self-attention, text and image attention; also the labels of `attend`. See `attend_text_image` for `prompts`."""
        shift, scale, gate = (modulation[:, i] for i in range(3))
        with jax.named_scope("self_attention"):
            y, labels = self.attend(modulated(x, shift, scale, self.sizes.eps, self.dtype), angles, kv, persons)
            x = gated(x, y, gate, self.dtype)
        with jax.named_scope("cross_attention"):
            x = x + self.attend_text_image(self.norm3(x).astype(self.dtype), kv, prompts)
        return x, labels

    def attend(self, x, angles, kv: KeysValues, persons: Persons | None):
        """Self-attention; with two persons also the tokens' L-RoPE labels [B, L], from the same q and k."""
        batch, length, _ = x.shape
        # the tokens may be padded for the mesh: padding is harmless among the queries, but masked among the keys
        tokens, frames = angles.shape[0], kv.audio_k.shape[1]
        padded_angles = jnp.pad(angles, ((0, length - tokens), (0, 0)))
        q = rotate(self.heads(self.norm_q(self.per_token(self.q, x))), padded_angles)
        k = rotate(self.heads(self.norm_k(self.per_token(self.k, x))), padded_angles)
        y = self_attention(q, k, self.heads(self.per_token(self.v, x)), tokens)
        labels = None
        if persons is not None:
            # softmax over the first frame's tokens, averaged over each mask, is attention with the masks as values
            first_k = k[:, ::frames]
            masks = persons.masks.reshape(-1, *persons.masks.shape[-2:])
            weights = (masks / masks.sum(2, keepdims=True)).swapaxes(1, 2)[:, :, None]
            padding = (0, first_k.shape[1] - weights.shape[1]), (0, 0), (0, self.sizes.head_dim - weights.shape[3])
            values = jnp.broadcast_to(jnp.pad(weights, ((0, 0), *padding)), first_k.shape).astype(self.dtype)
            per_head = self_attention(q, first_k, values, tokens // frames).astype(jnp.float32)
            attention_map = per_head[..., : weights.shape[3]].mean(2).swapaxes(1, 2)
            self.sow("intermediates", "reference_attention", attention_map)
            # assigning tokens to persons is a discrete decision: no gradient flows through it
            labels = jax.lax.stop_gradient(person_labels(attention_map, jnp.arange(length) < tokens))
            labels = labels * persons.labelled[:, None]
        return self.per_token(self.o, y.reshape(batch, length, -1)), labels

    def attend_text_image(self, x: Float[Array, "#B L D"], kv: KeysValues, prompts: Int[Array, " B"] | None):
        """Attention to the text tokens plus separate attention to the image tokens (Wan2.1 I2V).

        `prompts` is the index of each branch's prompt; if None, the result has one entry for each prompt.
        """
        q = self.heads(self.cross_norm_q(self.per_token(self.cross_q, x)))
        of_image = lambda part: jnp.broadcast_to(part, (len(x), *part.shape[1:]))
        y = cross_attention(q, of_image(kv.image_k), of_image(kv.image_v))
        k, v = (part if prompts is None else part[prompts] for part in (kv.text_k, kv.text_v))
        y = y + cross_attention(jnp.broadcast_to(q, (len(k), *q.shape[1:])), k, v)
        return self.per_token(self.cross_o, y.reshape(len(k), *x.shape[1:]))

    def attend_audio(self, x, kv: KeysValues, branches: BranchIndices | None, labels):
        """Attention of each latent frame's tokens to that frame's audio tokens only."""
        q = self.heads(self.per_token(self.audio_q, x))
        if labels is not None:
            q = rotate(q, label_angles(labels, self.sizes.head_dim))
        batch, length, *head = q.shape
        frames, tokens = kv.audio_k.shape[1:3]
        by_frame = q.reshape(batch, length // frames, frames, *head).swapaxes(1, 2).reshape(-1, length // frames, *head)
        of_voice = lambda part: part if branches is None else part[branches.audio]
        of_frame = lambda part: of_voice(part).reshape(batch * frames, tokens, *head)
        y = cross_attention(by_frame, of_frame(kv.audio_k), of_frame(kv.audio_v))
        y = y.reshape(batch, frames, length // frames, *head).swapaxes(1, 2)
        return self.per_token(self.audio_o, y.reshape(x.shape))
