"""How many operations a training step of the DiT takes, counted from its sizes. Allocates nothing.

A multiplication and its addition are two. Matrix products alone are counted, on tokens that are there: no padding, and
nothing that is computed a second time in the backward pass (arXiv 2204.02311, appendix B).
"""

import math
from collections.abc import Collection
from typing import NamedTuple

from itjax.config import Networks

# L video tokens · X text tokens · Y image tokens · A audio tokens of a latent frame · D width · N layers


class Weight(NamedTuple):
    """A product of tokens with a weight, in all layers. `after`: what its tokens came through, None for video tokens."""

    path: str  # of the layer in the parameters
    flops: float
    after: tuple[str, ...] | None = None


class Attention(NamedTuple):
    """Scores of video tokens with keys, and the mix of values by them: half of `flops` each.

    `keys`, `values`: what those came through.
    """

    flops: float
    keys: tuple[str, ...] | None = None
    values: tuple[str, ...] | None = None


TEXT = ("text_in", "text_out")
IMAGE = ("image_norm_in", "image_in", "image_out", "image_norm_out")
VOICE = ("audio_adapter/proj1", "audio_adapter/proj1_vf", "audio_adapter/proj2", "audio_adapter/proj3", "audio_adapter/norm")


def forward_flops(networks: Networks, latent: tuple[int, int, int], persons: int = 1) -> float:
    """Operations of one forward on one example, its keys and values included; `latent`: its frames, height and width."""
    weights, attentions = _weights(networks, latent, persons), _attentions(networks, latent, persons)
    return float(sum(weight.flops for weight in weights) + sum(part.flops for part in attentions))


def train_flops(
    networks: Networks, latent: tuple[int, int, int], trained: Collection[str], batch: int = 1, persons: int = 1
) -> float:
    """Operations of forward and backward on `batch` examples.

    The gradient of a weight is a product as large as its own, and so is that of the weight's input. A frozen weight has
    no gradient, and what came through frozen weights alone needs none. Through the video tokens the gradient always
    flows: that the layers below the lowest trained one go without it in the first block is not deducted.

    Args:
        networks: sizes of the DiT, and of CLIP's tokens.
        latent: frames, height and width of the latents of an example.
        trained: paths of the trained parameters ("blocks/audio_q/kernel", as `flatten_dict(params, sep="/")` has them).
        batch: examples of a step.
        persons: voices of an example.
    """
    changed = {path.rpartition("/")[0] for path in trained}
    moves = lambda after: after is None or not changed.isdisjoint(after)
    weights = sum(
        weight.flops * (1 + (f"{weight.path}/kernel" in trained) + moves(weight.after))
        for weight in _weights(networks, latent, persons)
    )
    # backward: the gradient of the shares, that of the queries, and where they move those of keys and values
    attentions = sum(
        part.flops * (2 + moves(part.keys) / 2 + moves(part.values) / 2) for part in _attentions(networks, latent, persons)
    )
    return float(batch * (weights + attentions))


def video_tokens(networks: Networks, latent: tuple[int, int, int]) -> int:
    """Tokens of the latents of one example."""
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
    asked = 4 * sizes.num_layers * sizes.dim * video  # for each key
    attentions = [
        Attention(asked * video),
        Attention(asked * sizes.text_len, (*TEXT, "blocks/cross_k", "blocks/cross_norm_k"), (*TEXT, "blocks/cross_v")),
        Attention(
            asked * networks.clip.tokens,
            (*IMAGE, "blocks/cross_k_img", "blocks/cross_norm_k_img"),
            (*IMAGE, "blocks/cross_v_img"),
        ),
        Attention(asked * persons * sizes.audio.context_tokens, (*VOICE, "blocks/audio_kv"), (*VOICE, "blocks/audio_kv")),
    ]
    if persons > 1:  # the tokens' labels: scores with the first latent frame's keys; three masks as values are nothing
        attentions += [Attention(asked * video // (latent[0] // sizes.patch_size[0]) / 2)]
    return attentions
