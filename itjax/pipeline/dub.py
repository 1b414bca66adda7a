"""From a request to a video file: prepares what the chunk loop takes, runs it, and keeps what it makes.

Everything that can be wrong with the user's input is found before the weights are read.
"""

import hashlib
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array
from PIL import Image
from tqdm import tqdm

from itjax.conditioning import persons
from itjax.conditioning.speech_features import FPS, frame_count
from itjax.config import PictureSize, Sampler
from itjax.errors import OutputError
from itjax.media import speech
from itjax.media.resize import resize_and_crop
from itjax.media.writer import VideoWriter, open_writer
from itjax.pipeline import encoders
from itjax.pipeline.inputs import SAME_END, Inputs, open_inputs
from itjax.pipeline.request import Request
from itjax.sampling import chunk, rollout
from itjax.sampling.chunk import Carry, ChunkInputs, Program, Reference
from itjax.sampling.noise import NoiseFile, SeededNoise
from itjax.sampling.plan import ChunkPlan, plan, speech_windows
from itjax.weights.sources import Weights


class Settings(NamedTuple):
    """How a request is carried out."""

    sampler: Sampler
    size: PictureSize
    max_frames: int
    seed: int
    dtype: DTypeLike
    save_file: Path
    resume: bool = False
    noise: Path | None = None
    save_frames: Path | None = None


def dub(request: Request, settings: Settings, weights: Weights, mesh: Mesh) -> None:
    """Makes the video, chunk by chunk.

    Raises:
        UserError: where anything is not as it must be; every finished chunk is kept.
    """
    inputs = open_inputs(request, settings.size.table)
    chunks = plan([frame_count(len(track)) for track in inputs.tracks], settings.sampler, settings.max_frames)
    noise = _noise(inputs, settings, weights)
    if isinstance(noise, NoiseFile):
        noise.check(chunks)
    _tell(inputs, settings, chunks)
    sound = speech.sound_track(request.sounds, request.audio_type)
    size = inputs.height, inputs.width
    fingerprint = _fingerprint(inputs, settings, weights)
    with open_writer(settings.save_file, size, FPS, sound, fingerprint, settings.resume, settings.save_frames) as writer:
        if writer.finished:
            print(f"{writer.files.video} is finished already: nothing to do")
            return
        if inputs.masks is not None:
            _draw_persons(inputs, inputs.masks, writer.files.video)
        with jax.set_mesh(mesh):
            _make(inputs, settings, weights, mesh, noise, chunks, writer)
        print(f"wrote {writer.finish()}")


def _noise(inputs: Inputs, settings: Settings, weights: Weights) -> SeededNoise | NoiseFile:
    vae = weights.preset.networks.vae
    grid = inputs.height // vae.spatial_stride, inputs.width // vae.spatial_stride
    shape = (settings.sampler.num_latents, *grid, vae.z_dim)
    return NoiseFile(settings.noise, shape) if settings.noise else SeededNoise(settings.seed, shape)


def _tell(inputs: Inputs, settings: Settings, chunks: list[ChunkPlan]) -> None:
    frames = chunks[-1].start + chunks[-1].kept.stop
    available = max(frame_count(len(track)) for track in inputs.tracks)
    print(f"{frames} frames ({frames / FPS:.2f} s) of {inputs.width}x{inputs.height} in {_count(len(chunks), 'chunk')}")
    if frames < available - SAME_END:
        warnings.warn(
            f"the speech lasts {available / FPS:.2f} s, the video is cut to {frames / FPS:.2f} s "
            "(--mode streaming with a larger --max_frame_num makes all of it)",
            stacklevel=2,
        )
    shown = inputs.source.num_frames
    if shown is not None and shown < frames and settings.sampler.strategy != "i2v":  # which takes its first frame only
        warnings.warn(
            f"the source video has {shown / FPS:.2f} s, the video {frames / FPS:.2f} s: its last frame stays",
            stacklevel=2,
        )


def _draw_persons(inputs: Inputs, masks: np.ndarray, video: Path) -> None:
    picture = resize_and_crop(inputs.source.frame(0), (inputs.height, inputs.width))
    path = video.with_suffix(".persons.png")
    try:
        Image.fromarray(persons.draw_masks(picture, masks)).save(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    print(f"who is who: {path}")


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _fingerprint(inputs: Inputs, settings: Settings, weights: Weights) -> dict[str, str | int | float]:
    """All that decides what the frames are."""
    request = inputs.request
    sampler = asdict(settings.sampler)
    if sampler["strategy"] == "soft":
        del sampler["strategy"]  # so that runs begun when there was no other can be gone on with
    files = [request.source, *request.sounds.values(), *(request.masks or ()), settings.noise]
    return {
        "prompt": request.prompt,
        "files": ", ".join("none" if path is None else f"{path.name} {_digest(path)}" for path in files),
        "audio_type": str(request.audio_type),
        "boxes": str(request.boxes),
        "sampler": str(sampler),
        "max_frame_num": settings.max_frames,
        "base_seed": settings.seed,
        "dtype": jnp.dtype(settings.dtype).name,
        "weights": hashlib.sha256(weights.identity.encode()).hexdigest()[:16],
    }


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


# -- the loop ---------------------------------------------------------------------------------------------------------


def _make(
    inputs: Inputs, settings: Settings, weights: Weights, mesh: Mesh, noise: SeededNoise | NoiseFile,
    chunks: list[ChunkPlan], writer: VideoWriter,
) -> None:  # fmt: skip
    """Loads the networks and makes the chunks that `writer` does not have yet."""
    program = Program(weights.preset.networks, settings.sampler, settings.dtype)
    with _timed("words"):
        prompts = encoders.encode_prompts(weights, inputs.request.prompt, mesh, program)
    with _timed("speech"):
        features = encoders.encode_speech(weights, inputs.tracks, mesh, program.networks)
    with _timed("pictures"):
        encoder = encoders.open_reference_encoder(weights, mesh, program)
        picture, reference = _reference_at(encoder, inputs, 0)
    with _timed("the DiT"):
        invariants = encoders.invariants(weights, mesh, encoder, prompts, picture, inputs.masks, settings.size.teacache)
    carry = chunk.first_carry(picture, settings.sampler)
    if writer.state is not None:
        carry = Carry(**{name: jnp.asarray(value) for name, value in writer.state.items()})
        print(f"going on after {writer.frames_done} frames")
    window = program.networks.dit.audio.window

    def chunk_inputs() -> Iterator[ChunkInputs]:
        for current in remaining:
            around = speech_windows(current, features, settings.sampler.frame_num, window)
            shows = reference
            if current.number and reference is not None and not inputs.source.is_still:
                shows = _reference_at(encoder, inputs, current.start)[1]
            yield ChunkInputs(jnp.asarray(around), shows, jnp.asarray(noise.read(current.number)))

    remaining = chunks[writer.next_chunk :]
    ends = [time.perf_counter()]
    with tqdm(total=len(remaining) * settings.sampler.steps, unit="step", smoothing=0.1) as bar:
        bar.set_description(f"chunk {writer.next_chunk + 1} of {len(chunks)}")
        made = rollout.streamed(program, invariants, carry, chunk_inputs(), lambda step: bar.update())
        for current, (state, output) in zip(remaining, made, strict=True):
            floats = np.asarray(output.frames)[current.kept] if settings.save_frames else None
            kept = {name: np.asarray(value) for name, value in state._asdict().items()}
            writer.append(np.asarray(output.pixels)[current.kept], floats, kept)
            bar.set_description(f"chunk {min(current.number + 2, len(chunks))} of {len(chunks)}")
            ends.append(time.perf_counter())
    _tell_speed(ends, settings.sampler)


def _reference_at(encoder: encoders.ReferenceEncoder, inputs: Inputs, start: int) -> tuple[Array, Reference | None]:
    """The picture at frame `start`, and what of the source the chunk that starts there is shown, by the strategy."""
    sampler, size = encoder.program.sampler, (inputs.height, inputs.width)
    first = inputs.source.frame(start)
    if sampler.strategy == "i2v":
        return encoders.to_picture(first, size), None
    last = inputs.source.frame(start + sampler.frame_num - 1) if sampler.strategy == "fl2v" else None
    return encoders.encode_frame(encoder, first, size, last)


def _tell_speed(ends: list[float], sampler: Sampler) -> None:
    """Seconds a chunk and frames a second; the first chunk, which waits for the compiler, by itself."""
    seconds = np.diff(ends)
    if len(seconds) == 1:
        print(f"{seconds[0]:.2f} s for one chunk, compilation included")
    if len(seconds) > 1:
        later = seconds[1:].mean()
        print(
            f"{later:.2f} s a chunk, {sampler.new_frames / later:.2f} frames a second "
            f"(the first chunk, compilation included: {seconds[0]:.2f} s)"
        )


@contextmanager
def _timed(what: str) -> Iterator[None]:
    begun = time.perf_counter()
    print(f"preparing {what} ...", end=" ", flush=True)
    yield
    print(f"{time.perf_counter() - begun:.1f} s")
