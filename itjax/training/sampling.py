"""Samples a video for a held-out clip with the current weights and the chunk loop, next to the clip itself.

Records hold only latents, so the clip's own frames, including the first picture, are decoded from them by the VAE.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from itjax.config import PictureSize, Preset, Sampler
from itjax.media.containers import FRAME_RATE
from itjax.models import vae
from itjax.parallel.sharding import make_mesh, with_shardings
from itjax.pipeline import encoders
from itjax.records import SPEECH_MARGIN, Clip, Dataset, null_prompts
from itjax.sampling import chunk, rollout
from itjax.sampling.chunk import ChunkInputs, Invariants, Program, Reference
from itjax.sampling.color import color_statistics
from itjax.sampling.guidance import scales_of
from itjax.training import parameters
from itjax.training.config import Training
from itjax.weights.sources import Weights

# F frames per chunk · T latent frames · h w latent grid · H W pixels

STRATEGIES = {"I2V": "i2v", "FL2V": "fl2v"}


class Sampling(NamedTuple):
    """What sampling needs besides the DiT: program, a mesh without data parallelism, VAE, CLIP (i2v only), dataset."""

    program: Program
    mesh: Mesh
    vae: dict
    clip: dict | None
    dataset: Dataset


def prepare(settings: Training, weights: Weights, dataset: Dataset, mesh: Mesh) -> Sampling:
    """Reads the VAE. The sampler's chunk length, context and strategy are those of the training."""
    strategy = STRATEGIES.get(settings.references.strategy, "soft")
    motion = settings.motion_frames if strategy == "soft" else 1
    sampler = replace(settings.reports.sampler, frame_num=dataset.layout.frame_num, motion_frames=motion, strategy=strategy)
    program = Program(weights.preset.networks, sampler, jnp.dtype(settings.dtype))
    whole = make_mesh(heads=weights.preset.networks.dit.num_heads, devices=list(mesh.devices.flat))
    clip = weights.read("clip", whole, program.dtype) if strategy == "i2v" else None
    return Sampling(program, whole, weights.read("vae", whole, program.vae_dtype), clip, dataset)


def sample(
    sampling: Sampling, settings: Training, trainable: dict, frozen: dict, clip: Clip
) -> UInt8[np.ndarray, "F H W 3"]:
    """The clip's first seconds (at most reports.sample-seconds) on the left, the sampled video on the right.

    The chunk loop generates the video from the clip's first picture and its speech.
    """
    program, mesh, sampler = sampling.program, sampling.mesh, sampling.program.sampler
    with jax.set_mesh(mesh):
        # same devices, same order: arrays sharded over all of them do not move
        move = lambda tree: jax.device_put(tree, _shardings(tree, mesh))
        dit = move(parameters.merge(frozen, parameters.cast_for_compute(trainable, program.dtype)))
        source = _source(sampling, clip, int(settings.reports.sample_seconds * FRAME_RATE))
        picture = jnp.asarray(source[0])
        negative = np.asarray(null_prompts(sampling.dataset)[1])
        text = np.zeros_like(negative)
        text[: len(clip.text)] = clip.text
        steps = encoders.euler_steps(program, dit, _size(sampling.dataset.preset, source.shape[1:3]))
        color = jax.jit(color_statistics)(picture)
        masks = None if clip.masks is None else jnp.asarray(clip.masks, jnp.float32)
        strength = jnp.asarray(sampler.color_strength, jnp.float32)
        prompts, scales = jnp.asarray([text, negative]), scales_of(sampler)
        invariants = Invariants(dit, sampling.vae, prompts, steps, scales, color, strength, masks, sampling.clip)
        chunks = _chunks(sampling, settings, clip, len(source))
        parts = []
        for number, (_, output) in enumerate(
            rollout.streamed(program, invariants, chunk.first_carry(picture, sampler), chunks)
        ):
            parts.append(_on_host(output.pixels)[sampler.motion_frames if number else 0 :])
    frames = np.concatenate(parts)
    length = min(len(frames), len(source))
    pixels = np.round((np.clip(source, -1, 1) + 1) * 127.5).astype(np.uint8)
    return side_by_side(pixels[:length], frames[:length])


def side_by_side(
    source: UInt8[np.ndarray, "F H W 3"], sampled: UInt8[np.ndarray, "F H W 3"]
) -> UInt8[np.ndarray, "F H 2*W 3"]:  # fmt: skip
    """The source on the left, the sampled video on the right."""
    return np.concatenate([source, sampled], axis=2)


def _size(preset: Preset, picture: tuple[int, ...]) -> PictureSize:
    """The choice of `--size` that has pictures (height, width) like these; the first one, if none has."""
    choices = list(preset.sizes.values())
    return next((choice for choice in choices if picture in choice.table.values()), choices[0])


def _shardings(tree: dict, mesh: Mesh) -> dict:
    return jax.tree.map(lambda leaf: leaf.sharding, with_shardings(tree, mesh))


@partial(jax.jit, static_argnums=0)
def _decode(program: Program, parameters: dict, latents: Float[Array, "T h w C"]) -> Float[Array, "F H W 3"]:
    return vae.decode(parameters, latents[None], program.networks.vae, program.vae_dtype)[0]


def _source(sampling: Sampling, clip: Clip, limit: int) -> Float[np.ndarray, "F H W 3"]:
    """The clip's own frames, decoded from the chunks of its record: at most `limit`, but at least one chunk."""
    frames: list[np.ndarray] = []
    end = 0
    for start, latents in zip(clip.chunk_starts, clip.chunks, strict=True):
        if start > end or end >= limit:  # a chunk after a gap does not continue the previous ones
            break
        decoded = _on_host(_decode(sampling.program, sampling.vae, jnp.asarray(latents, jnp.float32)))
        frames.append(decoded[end - start :])
        end = int(start) + len(decoded)
    return np.concatenate(frames)[: max(limit, sampling.program.sampler.frame_num)]


def _chunks(sampling: Sampling, settings: Training, clip: Clip, num_frames: int) -> Iterator[ChunkInputs]:
    sampler, sizes = sampling.program.sampler, sampling.program.networks.dit.audio
    length = sampler.frame_num
    indices = np.arange(length)[:, None] + np.arange(sizes.window)
    key = jax.random.key(settings.seed)
    for number, start in enumerate(range(0, num_frames - length + 1, sampler.new_frames)):
        speech = clip.speech[:, start : start + length + 2 * SPEECH_MARGIN].astype(np.float32)
        noise = jax.random.normal(jax.random.fold_in(key, number), clip.chunks.shape[1:])
        yield ChunkInputs(jnp.asarray(speech[:, indices]), _reference(sampler, clip, start), noise)


def _reference(sampler: Sampler, clip: Clip, start: int) -> Reference | None:
    """The record's reference nearest to the chunk's first frame, where dubbing uses the source frame."""
    if sampler.strategy == "i2v":
        return None
    nearest = int(np.abs(clip.reference_frames - start).argmin())
    latents = clip.references[nearest]
    if sampler.strategy == "fl2v" and clip.ends is not None:
        latents = clip.ends[int(np.abs(clip.chunk_starts - start).argmin())]
    tokens = jnp.asarray(clip.clip_tokens[nearest], jnp.float32)
    mask = chunk.reference_mask(len(latents), sampler.strategy == "fl2v")
    return Reference(jnp.asarray(latents, jnp.float32), tokens, mask)


def _on_host(array: Array) -> np.ndarray:
    """The full array on the host of every process."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
