"""Combines the velocities of the guidance branches, which are the batch axis. Independent of the network.

Three branches are c (prompt and voice), n (negative prompt and voice) and u (negative prompt and silence); two are c and
d (prompt and silence).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from itjax.config import Apg, Sampler

# B branches (3 or 2) · G = B-1 differences · T h w C latents
Velocities = Float[Array, "B T h w C"]
Momentum = Float[Array, "G T h w C"]
Guide = Callable[[Velocities, Momentum], tuple[Float[Array, "T h w C"], Momentum]]


class Scales(NamedTuple):
    """The numbers of guidance, as arrays: a program that is compiled for some serves all others.

    `momentum` and `norm_threshold` belong to adaptive projected guidance, and are not used without it.
    """

    text: Float[Array, ""]
    audio: Float[Array, ""]
    momentum: Float[Array, ""]
    norm_threshold: Float[Array, ""]


def scales_of(sampler: Sampler) -> Scales:
    """The guidance numbers of the settings."""
    apg = sampler.apg or Apg()
    numbers = sampler.text_scale, sampler.audio_scale, apg.momentum, apg.norm_threshold or math.inf
    return Scales(*(jnp.asarray(number, jnp.float32) for number in numbers))


def differences(velocities: Velocities) -> Momentum:
    """Differences of consecutive branches: c - n and n - u, or c - d."""
    return velocities[:-1] - velocities[1:]


def classifier_free(velocities: Velocities, scales: Scales) -> Float[Array, "T h w C"]:
    """Classifier-free guidance: v = u + s_text·(c - n) + s_audio·(n - u), or v = d + s_audio·(c - d)."""
    deltas = differences(velocities)
    if len(velocities) == 2:
        return velocities[1] + scales.audio * deltas[0]
    return velocities[2] + scales.text * deltas[0] + scales.audio * deltas[1]


def adaptive_projected(
    velocities: Velocities, momentum: Momentum, scales: Scales
) -> tuple[Float[Array, "T h w C"], Momentum]:
    """Adaptive projected guidance (arXiv 2410.02416); returns v and the new momentum buffers.

    v = c + (s_text-1)·apg(c - n) + (s_audio-1)·apg(n - u), or c + (s_audio-1)·apg(c - d).

    Each difference is accumulated in a momentum buffer, scaled down to the norm threshold, and projected orthogonally to c;
    norms are over the whole latent.
    """
    axes = (-4, -3, -2, -1)
    norm = lambda x: jnp.sqrt(jnp.square(x).sum(axes, keepdims=True))
    momentum = differences(velocities) + scales.momentum * momentum
    update = momentum * jnp.minimum(1.0, scales.norm_threshold / jnp.maximum(norm(momentum), 1e-12))
    direction = velocities[0] / jnp.maximum(norm(velocities[0]), 1e-12)
    update = update - (update * direction).sum(axes, keepdims=True) * direction
    if len(velocities) == 2:
        return velocities[0] + (scales.audio - 1) * update[0], momentum
    return velocities[0] + (scales.text - 1) * update[0] + (scales.audio - 1) * update[1], momentum


def make_guide(sampler: Sampler, scales: Scales) -> Guide:
    """The guidance function for the settings. Without APG it returns the momentum buffers unchanged."""
    if sampler.apg is None:
        return lambda velocities, momentum: (classifier_free(velocities, scales), momentum)
    return lambda velocities, momentum: adaptive_projected(velocities, momentum, scales)
