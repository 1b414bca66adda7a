"""Encodes the prompt, speech and reference images of a run, and builds the invariants of the chunk loop.

The text encoder is the largest network besides the DiT and is used only once, so it is freed before the DiT is loaded.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32

from itjax.compilation import JitForFewCalls
from itjax.conditioning.persons import TOKEN_STRIDE
from itjax.conditioning.prompt import NEGATIVE_PROMPT, load_tokenizer, tokenize
from itjax.conditioning.speech_features import SpeechFeatures, speech_features
from itjax.config import Networks, PictureSize, Sampler
from itjax.media.picture_sizes import Size
from itjax.media.pictures import Picture
from itjax.media.resize import resize_and_crop, to_unit
from itjax.models.apply import apply
from itjax.models.clip_pixels import clip_pixels
from itjax.models.dit import DiT, TimeFeatures, sinusoidal_embedding
from itjax.models.umt5 import Umt5
from itjax.models.wav2vec2 import Wav2Vec2
from itjax.sampling import chunk, teacache
from itjax.sampling.chunk import Invariants, Program, Reference
from itjax.sampling.color import color_statistics
from itjax.sampling.denoise import EulerSteps
from itjax.sampling.guidance import scales_of
from itjax.sampling.schedule import euler_times
from itjax.weights.sources import Weights, free_device_memory

# U prompts · X tokens per prompt · D width · S tokens per latent frame


class ReferenceEncoder(NamedTuple):
    """The encoder of reference images: the program, and the parameters of VAE and CLIP.

    Args:
        once: whether it is called only once, and not for each chunk.
    """

    program: Program
    parameters: dict
    once: bool


@partial(JitForFewCalls, static_argnums=0)
def prompt_states(net: Umt5, parameters: dict, ids: Array, mask: Array) -> Float[Array, "U X D"]:
    """The text encoder's output for tokenised prompts, zero after each prompt's end.

    The DiT attends to these zeros, as the official code does.
    """
    return apply(net, parameters, ids, mask) * mask[..., None]


def encode_prompts(weights: Weights, prompt: str, mesh: Mesh, program: Program) -> Float[Array, "2 X D"]:
    """The encoded prompt and official negative prompt, zero after their ends."""
    networks = program.networks
    ids, mask = tokenize(
        load_tokenizer(weights.tokenizer, networks.umt5.vocabulary), [prompt, NEGATIVE_PROMPT], networks.dit.text_len
    )
    parameters = weights.read("umt5", mesh, program.dtype)
    states = prompt_states(Umt5(networks.umt5, program.dtype), parameters, jnp.asarray(ids), jnp.asarray(mask))
    states = jax.block_until_ready(states.astype(jnp.float32))
    free_device_memory(parameters)
    return states


def encode_speech(
    weights: Weights, tracks: Sequence[Float32[np.ndarray, " _"]], mesh: Mesh, networks: Networks
) -> list[SpeechFeatures]:
    """The features of each person's track. Long tracks are encoded in windows, when the chunks reach them."""
    # always float32: the network is small, and lip sync depends on it alone
    parameters = weights.read("wav2vec2", mesh, jnp.float32)
    return [speech_features(Wav2Vec2(networks.wav2vec2), parameters, track) for track in tracks]


def open_reference_encoder(weights: Weights, mesh: Mesh, program: Program, once: bool) -> ReferenceEncoder:
    """Loads VAE and CLIP, which encode reference images. `once`: see `ReferenceEncoder`."""
    dtypes = {"vae": program.vae_dtype, "clip": program.dtype}
    return ReferenceEncoder(program, {name: weights.read(name, mesh, dtype) for name, dtype in dtypes.items()}, once)


_reference_often = jax.jit(chunk.encode_reference, static_argnums=0)
_reference_once = JitForFewCalls(chunk.encode_reference, static_argnums=0)


def to_picture(frame: Picture, size: Size) -> Float[Array, "h w 3"]:
    """A source frame, resized and cropped to the video's size, in -1..1."""
    return jnp.asarray(to_unit(resize_and_crop(frame, size)))


def encode_frame(
    encoder: ReferenceEncoder, frame: Picture, size: Size, last: Picture | None = None
) -> tuple[Array, Reference]:
    """A source frame at the video's size in -1..1 [height, width, 3], and the reference encoded from it.

    `last`: the source frame at the chunk's end, if that is also part of the reference (strategy fl2v).
    """
    first = to_picture(frame, size)
    clip_picture = clip_pixels(first, encoder.program.networks.clip.image)
    end = None if last is None else to_picture(last, size)
    program = encoder.program.reduced_to("frame_num", motion_frames=1)  # all that the reference depends on
    encode = _reference_once if encoder.once else _reference_often
    return first, encode(program, encoder.parameters, first, clip_picture, end)


@partial(jax.jit, static_argnums=0)
def _time_features(net: DiT, parameters: dict, sinusoids: Float[Array, "n F"]) -> TimeFeatures:
    return apply(net, parameters, sinusoids, method="time_features")


def euler_steps(program: Program, parameters: dict, size: PictureSize) -> EulerSteps:
    """The Euler steps, the same for every chunk: times, time features, and which steps TeaCache runs."""
    sampler: Sampler = program.sampler
    t = euler_times(sampler.steps, float(sampler.shift_at(size)))
    features = _time_features(
        program.net, parameters, jnp.asarray(sinusoidal_embedding(t[:-1], program.networks.dit.freq_dim))
    )
    run = np.ones(sampler.steps, bool)
    if sampler.teacache_threshold is not None:
        run = teacache.schedule(np.asarray(features.blocks), size.teacache, sampler.teacache_threshold)
    return EulerSteps(jnp.asarray(t[:-1]), jnp.asarray(t[1:]), features, jnp.asarray(run))


def token_masks(masks: Float32[np.ndarray, "G h w"]) -> Float[Array, "G S"]:
    """Converts masks from the latent grid to tokens (2x2 patches, nearest neighbour)."""
    return jnp.asarray(masks[:, ::TOKEN_STRIDE, ::TOKEN_STRIDE].reshape(len(masks), -1), jnp.float32)


def invariants(
    weights: Weights, mesh: Mesh, encoder: ReferenceEncoder, prompts: Array, picture: Array,
    masks: np.ndarray | None, size: PictureSize,
) -> Invariants:  # fmt: skip
    """Loads the DiT, the last network, and builds the chunk loop's invariants. Colours are matched to those of `picture`."""
    program = encoder.program
    dit = weights.read("dit", mesh, program.dtype)
    steps = euler_steps(program, dit, size)
    persons = None if masks is None else token_masks(masks)
    clip = encoder.parameters["clip"] if program.sampler.strategy == "i2v" else None
    strength = jnp.asarray(program.sampler.color_strength, jnp.float32)
    return Invariants(
        dit, encoder.parameters["vae"], prompts, steps, scales_of(program.sampler), jax.jit(color_statistics)(picture),
        strength, persons, clip,
    )  # fmt: skip
