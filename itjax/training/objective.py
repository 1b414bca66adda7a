"""Flow matching on chunks: what the network is shown of an example, what of it is dropped, and what it is to predict.

x_τ = (1-τ)·data + τ·noise, target noise - data, mean squared error (rectified flow, arXiv 2209.03003). Context latents
stay clean in the input and out of the loss, as the chunk loop pins them.
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
from itjax.training.config import Dropout, References, TimeLaw

AnyArray = Array | np.ndarray

# B examples · T latent frames · h w latent grid · P persons · G persons and background
# F pixel frames · N layers of the speech encoder · S tokens


class Batch(NamedTuple):
    """Examples as they are read.

    `speech` has SPEECH_MARGIN frames more on each side; `text` is zero beyond its end; `context_latents`: how many of the
    first latents are context; `identity`: the example's number in the stream, from which its τ, noise and dropouts are
    drawn; `masks`: two persons and the background on the grid of tokens, or None; `region`: 0..1, where the loss counts
    more, or None.
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


class Draws(NamedTuple):
    """What chance decides of each example; dropped conditions are 1."""

    times: Float[Array, " B"]
    noise: Float[Array, "B T h w C"]
    text: Float[Array, " B"]
    audio: Float[Array, " B"]
    image: Float[Array, " B"]


def draw_times(key: Array, law: TimeLaw) -> Float[Array, ""]:
    """One τ in 0..1 by the law (logit-normal: arXiv 2403.03206, section 3.1), shifted."""
    time = jax.random.uniform(key) if law.law == "uniform" else jax.nn.sigmoid(law.mean + law.std * jax.random.normal(key))
    return shifted(time, law.shift)


def shifted(times: Float[Array, "*b"], shift: float) -> Float[Array, "*b"]:
    """τ → shift·τ / (1 + (shift - 1)·τ), as the sampling schedule does (arXiv 2403.03206, eq. 23)."""
    return shift * times / (1 + (shift - 1) * times)


def draw(batch: Batch, seed: int, law: TimeLaw, dropout: Dropout) -> Draws:
    """What chance decides, from the seed and each example's identity alone.

    Neither the step nor where the example lies in a batch matters.
    """
    shape = batch.latents.shape[1:]

    def of_one(identity: Array) -> Draws:
        times, noise, drops = jax.random.split(jax.random.fold_in(jax.random.key(seed), identity), 3)
        text, audio, both, image = jax.random.uniform(drops, (4,)) < jnp.asarray(
            [dropout.text, dropout.audio, dropout.both, dropout.image]
        )
        # in a row: the same numbers as in the latents' shape, in a program that compiles in a twentieth of the time
        standard = jax.random.normal(noise, (math.prod(shape),)).reshape(shape)
        flags = (text | both, audio | both, image)
        return Draws(draw_times(times, law), standard, *(flag.astype(jnp.float32) for flag in flags))

    return jax.vmap(of_one)(jnp.asarray(batch.identity))


def speech_windows(speech: Float[Array, "B P F2 N Ca"], sizes: AudioAdapterSizes) -> Float[Array, "B P F W N Ca"]:
    """The speech around each frame of a chunk."""
    frames = speech.shape[2] - 2 * SPEECH_MARGIN
    around = np.arange(frames)[:, None] + np.arange(sizes.window)
    return speech[:, :, around]


def noisy(
    data: Float[Array, "B T h w C"], draws: Draws, context_latents: Int[Array, " B"]
) -> tuple[Float[Array, "B T h w C"], Float[Array, "B T h w C"], Float[Array, "B T"]]:
    """What the network is given, what it is to predict, and 1 for the latents that count (0: context, which is clean)."""
    times = draws.times[:, None, None, None, None]
    counted = jnp.arange(data.shape[1]) >= context_latents[:, None]
    mixed = (1 - times) * data + times * draws.noise
    return jnp.where(counted[:, :, None, None, None], mixed, data), draws.noise - data, counted.astype(jnp.float32)


def losses(
    net: DiT,
    parameters: dict,
    batch: Batch,
    draws: Draws,
    null_text: Float[Array, "X Dt"],
    references: References,
    region_weight: float = 1.0,
) -> Float[Array, " B"]:
    """Mean squared error of each example over its latents that are not context, in float32.

    A cell of the batch's region counts `region_weight` times as much as one outside of it.
    """
    batch = jax.tree.map(lambda x: constrain(jnp.asarray(x), "data"), batch)
    wide = lambda x: x.astype(jnp.float32)
    data, context_latents = wide(batch.latents), jnp.asarray(batch.context_latents)
    given, target, counted = noisy(data, draws, context_latents)
    mask = reference_mask(data.shape[1], with_last=references.strategy == "FL2V")[None, :, None, None]
    shown = jnp.concatenate([jnp.broadcast_to(mask, (*data.shape[:-1], 4)), wide(batch.reference)], axis=-1)
    kept = lambda dropped, x: x * (1 - dropped).reshape(-1, *(1,) * (x.ndim - 1))
    text = jnp.where(draws.text[:, None, None] > 0, null_text, wide(batch.text))
    heard = kept(draws.audio, speech_windows(wide(batch.speech), net.sizes.audio))
    # silence knows no persons, in guidance as here
    persons = None if batch.masks is None else Persons(wide(batch.masks), 1 - draws.audio)
    call = constrain(given, "data"), constrain(shown, "data"), 1000 * draws.times, text
    predicted = apply(net, parameters, *call, kept(draws.image, wide(batch.clip)), heard, persons, method="train")
    counted = jnp.broadcast_to(counted[:, :, None, None], data.shape[:-1])
    if batch.region is not None:
        counted *= 1 + (region_weight - 1) * wide(batch.region)
    errors = jnp.square(predicted - target).mean(-1)
    return (errors * counted).sum((1, 2, 3)) / counted.sum((1, 2, 3))


def fixed_times(count: int, per_clip: int) -> Float32[np.ndarray, " n"]:
    """τ of a validation set of `count` clips, each seen at `per_clip` of them: the middles of equal parts of 0..1."""
    return np.tile((np.arange(per_clip) + 0.5) / per_clip, count).astype(np.float32)
