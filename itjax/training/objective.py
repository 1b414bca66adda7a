"""Flow matching on chunks: the network's inputs with condition dropout, its target, and the loss.

x_τ = (1-τ)·data + τ·noise, target noise - data, mean squared error (rectified flow, arXiv 2209.03003). Context latents
are clean in the input and excluded from the loss, as the chunk loop pins them.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt32

from itjax.config import AudioAdapterSizes
from itjax.models.apply import apply
from itjax.models.dit import DiT
from itjax.models.dit_block import Persons
from itjax.parallel.sharding import constrain
from itjax.records import SPEECH_MARGIN
from itjax.sampling.chunk import reference_mask
from itjax.training.config import Dropout, References, TimeDistribution

AnyArray = Array | np.ndarray

# B examples · T latent frames · h w latent grid · P persons · G persons and background
# F pixel frames · N layers of the speech encoder · S tokens


class Batch(NamedTuple):
    """A batch of examples as read from the dataset.

    `speech` has SPEECH_MARGIN additional frames on each side; `text` is zero-padded; `context_latents`: number of leading
    latents that are context; `identity`: index of the example in the stream, which seeds its τ, noise and dropout; `masks`:
    two persons and the background on the token grid, or None; `region`: 0..1, where the loss has a higher weight, or None.
    """

    latents: Float[AnyArray, "B T h w C"]
    reference: Float[AnyArray, "B T h w C"]
    clip: Float[AnyArray, "B Y Dc"]
    speech: Float[AnyArray, "B P F N Ca"]
    text: Float[AnyArray, "B X Dt"]
    context_latents: Int[AnyArray, " B"]
    identity: UInt32[AnyArray, " B"]
    masks: Float[AnyArray, "B G S"] | None
    region: Float[AnyArray, "B T h w"] | None = None


class RandomDraws(NamedTuple):
    """Random draws of each example. `text`, `audio`, `image`: 1 if the condition is dropped."""

    times: Float[Array, " B"]
    noise: Float[Array, "B T h w C"]
    text: Float[Array, " B"]
    audio: Float[Array, " B"]
    image: Float[Array, " B"]


def draw_times(key: Array, distribution: TimeDistribution) -> Float[Array, ""]:
    """Draws one τ in 0..1 (logit-normal: arXiv 2403.03206, section 3.1) and shifts it."""
    if distribution.law == "uniform":
        time = jax.random.uniform(key)
    else:
        time = jax.nn.sigmoid(distribution.mean + distribution.std * jax.random.normal(key))
    return shift_times(time, distribution.shift)


def shift_times(times: Float[Array, "*b"], shift: float) -> Float[Array, "*b"]:
    """τ → shift·τ / (1 + (shift - 1)·τ), as in the sampling schedule (arXiv 2403.03206, section 5.3.2, eq. 23)."""
    return shift * times / (1 + (shift - 1) * times)


def draw_randoms(batch: Batch, seed: int, distribution: TimeDistribution, dropout: Dropout) -> RandomDraws:
    """Draws τ, noise and dropout, seeded only by `seed` and each example's identity.

    They depend neither on the step nor on the example's position in the batch.
    """
    shape = batch.latents.shape[1:]

    def draw_one(identity: Array) -> RandomDraws:
        times, noise, drops = jax.random.split(jax.random.fold_in(jax.random.key(seed), identity), 3)
        text, audio, both, image = jax.random.uniform(drops, (4,)) < jnp.asarray(
            [dropout.text, dropout.audio, dropout.both, dropout.image]
        )
        # drawn flat: the same numbers as with the latents' shape, but the program compiles 20 times faster
        standard = jax.random.normal(noise, (math.prod(shape),)).reshape(shape)
        flags = (text | both, audio | both, image)
        return RandomDraws(draw_times(times, distribution), standard, *(flag.astype(jnp.float32) for flag in flags))

    return jax.vmap(draw_one)(jnp.asarray(batch.identity))


def speech_windows(speech: Float[Array, "B P F2 N Ca"], sizes: AudioAdapterSizes) -> Float[Array, "B P F W N Ca"]:
    """The speech features around each frame of a chunk."""
    frames = speech.shape[2] - 2 * SPEECH_MARGIN
    indices = np.arange(frames)[:, None] + np.arange(sizes.window)
    return speech[:, :, indices]


def add_noise(
    data: Float[Array, "B T h w C"], draws: RandomDraws, context_latents: Int[Array, " B"]
) -> tuple[Float[Array, "B T h w C"], Float[Array, "B T h w C"], Float[Array, "B T"]]:
    """Noisy input, target, and a mask of the latents in the loss (1); context (0) stays clean in the input."""
    times = draws.times[:, None, None, None, None]
    in_loss = jnp.arange(data.shape[1]) >= context_latents[:, None]
    mixed = (1 - times) * data + times * draws.noise
    return jnp.where(in_loss[:, :, None, None, None], mixed, data), draws.noise - data, in_loss.astype(jnp.float32)


def losses(
    net: DiT,
    parameters: dict,
    batch: Batch,
    draws: RandomDraws,
    null_text: Float[Array, "X Dt"],
    references: References,
    region_weight: float = 1.0,
) -> Float[Array, " B"]:
    """Mean squared error of each example over all latents except context, in float32.

    Latent cells inside the batch's region have weight `region_weight`, the others 1.
    """
    batch = jax.tree.map(lambda x: constrain(jnp.asarray(x), "data"), batch)
    as_float32 = lambda x: x.astype(jnp.float32)
    data, context_latents = as_float32(batch.latents), jnp.asarray(batch.context_latents)
    noisy_latents, target, cell_weights = add_noise(data, draws, context_latents)
    mask = reference_mask(data.shape[1], with_last=references.strategy == "FL2V")[None, :, None, None]
    condition = jnp.concatenate([jnp.broadcast_to(mask, (*data.shape[:-1], 4)), as_float32(batch.reference)], axis=-1)
    keep = lambda dropped, x: x * (1 - dropped).reshape(-1, *(1,) * (x.ndim - 1))
    text = jnp.where(draws.text[:, None, None] > 0, null_text, as_float32(batch.text))
    speech = keep(draws.audio, speech_windows(as_float32(batch.speech), net.sizes.audio))
    # silence belongs to no person, as in guidance
    persons = None if batch.masks is None else Persons(as_float32(batch.masks), 1 - draws.audio)
    inputs = constrain(noisy_latents, "data"), constrain(condition, "data"), 1000 * draws.times, text
    predicted = apply(net, parameters, *inputs, keep(draws.image, as_float32(batch.clip)), speech, persons, method="train")
    cell_weights = jnp.broadcast_to(cell_weights[:, :, None, None], data.shape[:-1])
    if batch.region is not None:
        cell_weights *= 1 + (region_weight - 1) * as_float32(batch.region)
    errors = jnp.square(predicted - target).mean(-1)
    return (errors * cell_weights).sum((1, 2, 3)) / cell_weights.sum((1, 2, 3))


def fixed_times(count: int, per_clip: int) -> Float32[np.ndarray, " n"]:
    """τ for validation of `count` clips at `per_clip` times each: the midpoints of equal intervals of 0..1."""
    return np.tile((np.arange(per_clip) + 0.5) / per_clip, count).astype(np.float32)
