"""Encodes clips with the networks on all devices: batches are split over the mesh's `data` axis. No file access.

The image networks are replicated on every device (a few GB at most), which avoids gathering parameters for each batch; the
text encoder is sharded over all devices. Speech is little work compared with images, so every device encodes all of it.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float16, Float32, Int, UInt8

from itjax.conditioning.prompt import load_tokenizer, tokenize
from itjax.conditioning.speech_features import SpeechFeatures, speech_features
from itjax.config import Networks, Sampler
from itjax.models import vae
from itjax.models.apply import apply
from itjax.models.clip_pixels import clip_pixels
from itjax.models.umt5 import Umt5
from itjax.models.wav2vec2 import Wav2Vec2
from itjax.pipeline.encoders import prompt_states
from itjax.records import SPEECH_MARGIN, Layout, chunk_starts, reference_frames
from itjax.sampling.chunk import Program
from itjax.weights.sources import Weights, free_device_memory

# B batch over all devices · F frames · T latent frames · h w latent grid · P persons · N layers of the speech encoder


class Encoders(NamedTuple):
    """The image and speech encoders. `batch`: number of chunks or images encoded at once, over all devices."""

    program: Program
    parameters: dict
    speech: dict
    mesh: Mesh
    batch: int


class EncodedFrames(NamedTuple):
    """The latents and CLIP tokens of a clip (see `itjax.records.Clip`)."""

    chunks: Float16[np.ndarray, "n T h w C"]
    references: Float16[np.ndarray, "m T h w C"]
    clip_tokens: Float16[np.ndarray, "m Y Dc"]
    ends: Float16[np.ndarray, "n T h w C"] | None


def program_of(networks: Networks, layout: Layout, dtype: DTypeLike) -> Program:
    """A `Program` with the settings that encoding uses: network sizes, frames per chunk, dtype of matrix products."""
    return Program(networks, Sampler(frame_num=layout.frame_num, motion_frames=1), dtype)


def open_encoders(weights: Weights, mesh: Mesh, program: Program, batch: int) -> Encoders:
    """Loads VAE, CLIP and wav2vec2. `batch`: chunks encoded at once on each device."""
    replicated = NamedSharding(mesh, P())
    read = lambda name, dtype: jax.device_put(weights.read(name, mesh, dtype), replicated)
    vae_parameters = read("vae", program.vae_dtype)
    free_device_memory(vae_parameters.pop("decoder"))
    parameters = {"vae": vae_parameters, "clip": read("clip", program.dtype)}
    # always float32, as in inference: lip sync depends on it alone
    return Encoders(program, parameters, read("wav2vec2", jnp.float32), mesh, batch * mesh.shape["data"])


# -- pictures ---------------------------------------------------------------------------------------------------------


def encode_frames(encoders: Encoders, pixels: UInt8[np.ndarray, "F H W 3"], layout: Layout) -> EncodedFrames:
    """All latents and CLIP tokens of a clip."""
    program, parameters = encoders.program, encoders.parameters
    starts, references = chunk_starts(len(pixels), layout), reference_frames(len(pixels), layout)

    def latents(first_frames: Int[np.ndarray, " _"], positions: tuple[int, ...]) -> Float16[np.ndarray, "_ T h w C"]:
        """Latents of the chunks that start at `first_frames`: their frames at the indices `positions`, zeros elsewhere."""
        load = lambda i: (pixels[first_frames[i][:, None] + np.asarray(positions)],)
        run = lambda x: (_latents(program, parameters["vae"], _place_frames(layout.frame_num, positions, x)),)
        return _in_batches(encoders, run, load, len(first_frames))[0]

    tokens = lambda x: (_tokens(program, parameters["clip"], x),)
    return EncodedFrames(
        chunks=latents(starts, tuple(range(layout.frame_num))),
        references=latents(references, (0,)),
        clip_tokens=_in_batches(encoders, tokens, lambda i: (pixels[references[i]],), len(references))[0],
        ends=latents(starts, (0, layout.frame_num - 1)) if layout.ends else None,
    )


@partial(jax.jit, static_argnums=(0, 1))
def _place_frames(
    frame_num: int, positions: tuple[int, ...], pixels: UInt8[Array, "B k H W 3"]
) -> Float[Array, "B F H W 3"]:
    """A chunk with k images at `positions`, zeros elsewhere. Separate from the VAE, which is thus compiled only once."""
    batch, _, *picture = pixels.shape
    return jnp.zeros((batch, frame_num, *picture)).at[:, positions].set(_to_unit(pixels))


@partial(jax.jit, static_argnums=0)
def _latents(program: Program, parameters: dict, frames: Float[Array, "B F H W 3"]) -> Float16[Array, "B T h w C"]:
    return vae.encode(parameters, frames, program.networks.vae, program.vae_dtype).astype(jnp.float16)


@partial(jax.jit, static_argnums=0)
def _tokens(program: Program, parameters: dict, pixels: UInt8[Array, "B H W 3"]) -> Float16[Array, "B Y Dc"]:
    pictures = jax.vmap(lambda picture: clip_pixels(picture, program.networks.clip.image))(_to_unit(pixels))
    return apply(program.clip, parameters, pictures).astype(jnp.float16)


def _to_unit(pixels: UInt8[Array, "*b"]) -> Float[Array, "*b"]:
    """0..255 -> -1..1, on the device, because transferring bytes is faster than transferring floats."""
    return (pixels.astype(jnp.float32) / 255 - 0.5) * 2


def _in_batches(
    encoders: Encoders, run: Callable[..., tuple[Array, ...]], load: Callable[[Int[np.ndarray, " B"]], tuple], count: int
) -> tuple[np.ndarray, ...]:
    """Concatenates `run`(*`load`(indices)) over all indices below `count`. Pads the last batch with its last entry.

    One batch is computed while the next one is prepared; no more than these two are on the devices.
    """
    split = NamedSharding(encoders.mesh, P("data"))

    def results() -> Iterator[tuple[Array, ...]]:
        for start in range(0, count, encoders.batch):
            numbers = np.arange(start, start + encoders.batch).clip(max=count - 1)
            yield run(*(jax.device_put(np.ascontiguousarray(x), split) for x in load(numbers)))

    done: list[tuple[np.ndarray, ...]] = []
    pending: tuple[Array, ...] | None = None
    for batch in results():
        if pending is not None:
            done.append(tuple(np.asarray(x) for x in pending))
        pending = batch
    assert pending is not None, "a clip contains at least one chunk"
    done.append(tuple(np.asarray(x) for x in pending))
    return tuple(np.concatenate(parts)[:count] for parts in zip(*done, strict=True))


# -- speech -----------------------------------------------------------------------------------------------------------


def open_speech(encoders: Encoders, track: Float32[np.ndarray, " _"]) -> SpeechFeatures:
    """The features of a whole track, as in inference."""
    return speech_features(Wav2Vec2(encoders.program.networks.wav2vec2), encoders.speech, track)


def encode_speech(tracks: Sequence[SpeechFeatures], start: int, stop: int) -> Float16[np.ndarray, "P F N C"]:
    """Features of frames start - SPEECH_MARGIN .. stop + SPEECH_MARGIN - 1; beyond the track, its edge frames repeat."""

    def encode(track: SpeechFeatures) -> Float32[np.ndarray, "F N C"]:
        frames = np.arange(start - SPEECH_MARGIN, stop + SPEECH_MARGIN).clip(0, track.num_frames - 1)
        return track.window(int(frames[0]), int(frames[-1]) + 1)[frames - frames[0]]

    return np.stack([encode(track) for track in tracks]).astype(np.float16)


# -- text -------------------------------------------------------------------------------------------------------------


def token_counts(weights: Weights, texts: Sequence[str]) -> list[int]:
    """Number of tokens of each text, including the end token; at least one."""
    text_len = weights.preset.networks.dit.text_len
    tokenizer = load_tokenizer(weights.tokenizer, weights.preset.networks.umt5.vocabulary)
    return [int(tokenize(tokenizer, [text], text_len)[1].sum()) for text in texts]


def encode_texts(
    weights: Weights, texts: Sequence[str], mesh: Mesh, program: Program, batch: int
) -> Generator[Float32[np.ndarray, "X Dt"]]:
    """Yields each encoded text, zero after its end. Loads the text encoder, and frees it after the last text."""
    networks = program.networks
    tokenizer = load_tokenizer(weights.tokenizer, weights.preset.networks.umt5.vocabulary)
    parameters = weights.read("umt5", mesh, program.dtype)
    encoders = Encoders(program, {}, {}, mesh, batch * mesh.shape["data"])
    net = Umt5(networks.umt5, program.dtype)

    def run(ids: Array, mask: Array) -> tuple[Any, ...]:
        return (prompt_states(net, parameters, ids, mask).astype(jnp.float32),)

    try:
        for start in range(0, len(texts), encoders.batch):
            part = texts[start : start + encoders.batch]
            ids, mask = tokenize(tokenizer, part, networks.dit.text_len)
            load = lambda numbers: (ids[numbers], mask[numbers])  # noqa: B023  (called within this iteration)
            yield from _in_batches(encoders, run, load, len(part))[0]
    finally:
        free_device_memory(parameters)
