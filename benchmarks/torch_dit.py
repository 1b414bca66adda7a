"""A baseline DiT in plain PyTorch for one person, with the official tensor names and order of operations.

As in the official code, a forward pass is one guidance branch and computes everything anew: the audio adapter, the text and
image embeddings, and their keys and values in every block. It omits what the official code computes but does not need for
one person (the reference attention map), and what is slower than necessary (rotary in float64, branches on the dtype).
"""

import numpy as np
import torch
import torch.nn.functional as F

from itjax.config import DiTSizes
from itjax.models.dit import sinusoidal_embedding

# B batch (1) · T latent frames · h w latent grid · L = T·(h/2)·(w/2) tokens, time first · D width · H heads · d head width


def rotary(grid: tuple[int, int, int], head_dim: int) -> torch.Tensor:
    """Rotary embedding as unit complex numbers [L, 1, d/2]: pairs for time, height and width, theta 10000."""
    pairs = head_dim // 6
    counts = head_dim // 2 - 2 * pairs, pairs, pairs
    positions = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [
        position.reshape(-1, 1) * 10000.0 ** (-torch.arange(count, dtype=torch.float64) / count)
        for position, count in zip(positions, counts, strict=True)
    ]
    angles = torch.cat(angles, dim=1)[:, None]
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def rotated(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


class TorchDiT:
    """`weights`: {official name: float32 array}. Called with the inputs of one guidance branch; returns noise - data."""

    def __init__(self, sizes: DiTSizes, weights: dict[str, np.ndarray]):
        self.sizes = sizes
        self.weights = {name: torch.tensor(np.ascontiguousarray(value)) for name, value in weights.items()}

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def layer_norm(self, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps)

    def rms_norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.sizes.eps)

    def heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.sizes.num_heads, self.sizes.head_dim))

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    @torch.no_grad()
    def __call__(self, time, latents, condition, text, clip, windows) -> torch.Tensor:
        """Time in 0..1000, latents [16, T, h, w], mask and reference [20, T, h, w], text [X, Dt], clip [1, Y, Dc],
        speech windows [F, W, N, C] -> [16, T, h, w]."""
        sizes = self.sizes
        x = torch.cat([latents, condition])[None]
        weight, bias = self.weights["patch_embedding.weight"], self.weights["patch_embedding.bias"]
        x = F.conv3d(x, weight, bias, stride=sizes.patch_size)
        grid = tuple(x.shape[2:])
        x = x.flatten(2).transpose(1, 2)
        e = self.linear("time_embedding.0", torch.from_numpy(sinusoidal_embedding(np.asarray([time]), sizes.freq_dim)))
        e = self.linear("time_embedding.2", F.silu(e))
        e0 = self.linear("time_projection.1", F.silu(e)).unflatten(1, (6, sizes.dim))
        context = self.text(text), self.image(clip), self.audio(windows)
        turns = rotary(grid, sizes.head_dim)
        for i in range(sizes.num_layers):
            x = self.block(f"blocks.{i}", x, e0, turns, *context)
        shift, scale = (self.weights["head.modulation"] + e[:, None]).chunk(2, dim=1)
        x = self.linear("head.head", F.layer_norm(x, x.shape[-1:], eps=sizes.eps) * (1 + scale) + shift)
        x = x.reshape(*grid, *sizes.patch_size, sizes.out_dim)
        return torch.einsum("fhwpqrc->cfphqwr", x).reshape(sizes.out_dim, *latents.shape[1:])

    def text(self, text: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.linear("text_embedding.0", text[None]), approximate="tanh")
        return self.linear("text_embedding.2", x)

    def image(self, clip: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.linear("img_emb.proj.1", self.layer_norm("img_emb.proj.0", clip, 1e-5)))
        return self.layer_norm("img_emb.proj.4", self.linear("img_emb.proj.3", x), 1e-5)

    def audio(self, windows: torch.Tensor) -> torch.Tensor:
        """Speech features around each frame -> audio tokens of each latent frame [T, A, E]."""
        sizes = self.sizes.audio
        middle = sizes.window // 2
        groups = windows[1:].unflatten(0, (-1, sizes.frames_per_latent))
        later = torch.cat([groups[:, 0, : middle + 1], groups[:, 1:-1, middle], groups[:, -1, middle:]], dim=1)
        first = self.linear("audio_proj.proj1", windows[:1].flatten(1))
        x = F.relu(torch.cat([first, self.linear("audio_proj.proj1_vf", later.flatten(1))]))
        x = self.linear("audio_proj.proj3", F.relu(self.linear("audio_proj.proj2", x)))
        return self.layer_norm("audio_proj.norm", x.unflatten(1, (sizes.context_tokens, sizes.output_dim)), 1e-5)

    def block(self, name, x, e0, turns, text, image, audio) -> torch.Tensor:
        eps = self.sizes.eps
        modulation = (self.weights[f"{name}.modulation"] + e0).chunk(6, dim=1)
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = modulation
        y = F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale) + shift
        x = x + gate * self.self_attention(f"{name}.self_attn", y, turns)
        x = x + self.cross_attention(f"{name}.cross_attn", self.layer_norm(f"{name}.norm3", x, eps), text, image)
        x = x + self.audio_attention(f"{name}.audio_cross_attn", self.layer_norm(f"{name}.norm_x", x, eps), audio)
        y = F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + ffn_scale) + ffn_shift
        y = self.linear(f"{name}.ffn.2", F.gelu(self.linear(f"{name}.ffn.0", y), approximate="tanh"))
        return x + ffn_gate * y

    def self_attention(self, name: str, x, turns) -> torch.Tensor:
        q, k = (self.heads(self.rms_norm(f"{name}.norm_{part}", self.linear(f"{name}.{part}", x))) for part in "qk")
        v = self.heads(self.linear(f"{name}.v", x))
        return self.linear(f"{name}.o", self.attention(rotated(q, turns), rotated(k, turns), v))

    def cross_attention(self, name: str, x, text, image) -> torch.Tensor:
        q = self.heads(self.rms_norm(f"{name}.norm_q", self.linear(f"{name}.q", x)))
        k = self.heads(self.rms_norm(f"{name}.norm_k", self.linear(f"{name}.k", text)))
        k_image = self.heads(self.rms_norm(f"{name}.norm_k_img", self.linear(f"{name}.k_img", image)))
        v, v_image = self.heads(self.linear(f"{name}.v", text)), self.heads(self.linear(f"{name}.v_img", image))
        return self.linear(f"{name}.o", self.attention(q, k, v) + self.attention(q, k_image, v_image))

    def audio_attention(self, name: str, x, audio) -> torch.Tensor:
        by_frame = x.reshape(len(audio), -1, x.shape[-1])
        k, v = self.linear(f"{name}.kv_linear", audio).chunk(2, dim=-1)
        y = self.attention(self.heads(self.linear(f"{name}.q_linear", by_frame)), self.heads(k), self.heads(v))
        return self.linear(f"{name}.proj", y).reshape(x.shape)
