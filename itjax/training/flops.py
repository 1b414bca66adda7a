"""Counts the floating-point operations (FLOPs) of a DiT training step from its sizes. Allocates no arrays.

A multiply-add counts as two. Only matrix products are counted, without padding tokens and without recomputation in the
backward pass (arXiv 2204.02311, appendix B).
"""

import math
from collections.abc import Collection
from typing import NamedTuple

from itjax.config import Networks

# L video tokens · X text tokens · Y image tokens · A audio tokens per latent frame · D width · N layers


class Weight(NamedTuple):
    """A product of tokens with a weight, in all layers. `after`: the layers that produced its input; None: video tokens."""

    path: str  # of the layer in the parameter tree
    flops: float
    after: tuple[str, ...] | None = None


class Attention(NamedTuple):
    """Attention of video tokens: scores and weighted sum of values, half of `flops` each.

    `keys`, `values`: the layers that produced them; None: video tokens.
    """

    flops: float
    keys: tuple[str, ...] | None = None
    values: tuple[str, ...] | None = None


TEXT = ("text_in", "text_out")
IMAGE = ("image_norm_in", "image_in", "image_out", "image_norm_out")
VOICE = ("audio_adapter/proj1", "audio_adapter/proj1_vf", "audio_adapter/proj2", "audio_adapter/proj3", "audio_adapter/norm")


def forward_flops(networks: Networks, latent: tuple[int, int, int], persons: int = 1) -> float:
    """FLOPs of one forward pass on one example, including keys and values. `latent`: frames, height and width."""
    weights, attentions = _weights(networks, latent, persons), _attentions(networks, latent, persons)
    return float(sum(weight.flops for weight in weights) + sum(part.flops for part in attentions))


def train_flops(
    networks: Networks, latent: tuple[int, int, int], trained: Collection[str], batch: int = 1, persons: int = 1
) -> float:
    """FLOPs of the forward and backward pass on `batch` examples.

    The gradients of a weight and of its input each cost as much as the product itself. Frozen weights have no gradient, and
    inputs that depend only on frozen weights need none. Video tokens always have a gradient: in the first block, the layers
    below the lowest trained one need none, which is not deducted.

    Args:
        networks: Sizes of the DiT and of CLIP's tokens.
        latent: Frames, height and width of an example's latents.
        trained: Paths of the trained parameters as in `flatten_dict(params, sep="/")`, e.g. "blocks/audio_q/kernel".
        batch: Examples per step.
        persons: Voices per example.
    """
    trained_layers = {path.rpartition("/")[0] for path in trained}
    needs_gradient = lambda after: after is None or not trained_layers.isdisjoint(after)
    weights = sum(
        weight.flops * (1 + (f"{weight.path}/kernel" in trained) + needs_gradient(weight.after))
        for weight in _weights(networks, latent, persons)
    )
    # backward: the gradients of attention weights and queries, and of keys and values if these depend on trained weights
    attentions = sum(
        part.flops * (2 + needs_gradient(part.keys) / 2 + needs_gradient(part.values) / 2)
        for part in _attentions(networks, latent, persons)
    )
    return float(batch * (weights + attentions))


def video_tokens(networks: Networks, latent: tuple[int, int, int]) -> int:
    """Number of video tokens of one example."""
    return math.prod(n // patch for n, patch in zip(latent, networks.dit.patch_size, strict=True))


def _weights(networks: Networks, latent: tuple[int, int, int], persons: int) -> list[Weight]:
    sizes, audio = networks.dit, networks.dit.audio
    width, layers, patch = sizes.dim, sizes.num_layers, math.prod(sizes.patch_size)
    frames, video = latent[0] // sizes.patch_size[0], video_tokens(networks, latent)
    text, image, voice = sizes.text_len, networks.clip.tokens, frames * persons * audio.context_tokens
    first, later, hidden = audio.window, audio.window + audio.frames_per_latent - 1, audio.intermediate_dim
    vector = 2 * audio.layers * audio.channels * hidden

    outside = [
        Weight("patch_embedding", 2 * video * sizes.in_dim * patch * width, ()),
        Weight("time_in", 2 * sizes.freq_dim * width, ()),
        Weight("time_out", 2 * width**2, ("time_in",)),
        Weight("time_projection", 12 * width**2, ("time_in", "time_out")),
        Weight("text_in", 2 * text * sizes.text_dim * width, ()),
        Weight("text_out", 2 * text * width**2, TEXT[:1]),
        Weight("image_in", 2 * image * sizes.clip_dim**2, IMAGE[:1]),
        Weight("image_out", 2 * image * sizes.clip_dim * width, IMAGE[:2]),
        Weight("audio_adapter/proj1", persons * first * vector, ()),
        Weight("audio_adapter/proj1_vf", persons * (frames - 1) * later * vector, ()),
        Weight("audio_adapter/proj2", 2 * persons * frames * hidden**2, VOICE[:2]),
        Weight("audio_adapter/proj3", 2 * voice * hidden * audio.output_dim, VOICE[:3]),
        Weight("head", 2 * video * width * sizes.out_dim * patch),
    ]
    square = 2 * layers * width**2
    inside = [
        *(Weight(f"blocks/{name}", square * video) for name in ("q", "k", "v", "o", "cross_q", "cross_o")),
        *(Weight(f"blocks/{name}", square * video) for name in ("audio_q", "audio_o")),
        *(Weight(f"blocks/{name}", square * text, TEXT) for name in ("cross_k", "cross_v")),
        *(Weight(f"blocks/{name}", square * image, IMAGE) for name in ("cross_k_img", "cross_v_img")),
        Weight("blocks/audio_kv", 4 * layers * voice * audio.output_dim * width, VOICE),
        *(Weight(f"blocks/{name}", 2 * layers * video * width * sizes.ffn_dim) for name in ("ffn_in", "ffn_out")),
    ]
    return outside + inside


def _attentions(networks: Networks, latent: tuple[int, int, int], persons: int) -> list[Attention]:
    sizes = networks.dit
    video = video_tokens(networks, latent)
    flops_per_key = 4 * sizes.num_layers * sizes.dim * video  # per key
    attentions = [
        Attention(flops_per_key * video),
        Attention(
            flops_per_key * sizes.text_len, (*TEXT, "blocks/cross_k", "blocks/cross_norm_k"), (*TEXT, "blocks/cross_v")
        ),
        Attention(
            flops_per_key * networks.clip.tokens,
            (*IMAGE, "blocks/cross_k_img", "blocks/cross_norm_k_img"),
            (*IMAGE, "blocks/cross_v_img"),
        ),
        Attention(
            flops_per_key * persons * sizes.audio.context_tokens, (*VOICE, "blocks/audio_kv"), (*VOICE, "blocks/audio_kv")
        ),
    ]
    if (
        persons > 1
    ):  # person labels of the tokens: scores with the first latent frame's keys; the product with three masks is negligible
        attentions += [Attention(flops_per_key * video // (latent[0] // sizes.patch_size[0]) / 2)]
    return attentions
