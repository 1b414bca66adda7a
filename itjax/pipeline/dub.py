"""From a request to a video file: prepares the inputs of the chunk loop, runs it, and saves its output.

The user's input is checked completely before the weights are read.
"""

import contextlib
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array
from PIL import Image

from itjax.conditioning import persons
from itjax.conditioning.speech_features import FPS, frame_count
from itjax.config import Sampler
from itjax.disk import atomic_path, output_errors
from itjax.errors import ComputationError, SettingError, UserError
from itjax.media import run_files, speech
from itjax.media.containers import SAMPLE_RATE
from itjax.media.resize import resize_and_crop
from itjax.media.writer import VideoWriter, open_writer
from itjax.parallel.sharding import make_mesh
from itjax.pipeline import encoders
from itjax.pipeline.fingerprint import fingerprint
from itjax.pipeline.inputs import END_TOLERANCE, Inputs, open_inputs
from itjax.pipeline.noise_file import NoiseFile
from itjax.pipeline.process import default_dtype, exact_float32, memory_errors
from itjax.pipeline.request import Request
from itjax.pipeline.resume import check_state
from itjax.pipeline.settings import Settings
from itjax.progress import SILENT, Progress
from itjax.sampling import chunk, rollout
from itjax.sampling.chunk import Carry, ChunkInputs, ChunkOutput, Program, Reference
from itjax.sampling.noise import SeededNoise
from itjax.sampling.plan import ChunkPlan, plan, speech_windows
from itjax.weights.sources import Weights

LESS_MEMORY = "{branches_in_turn}, a smaller {size}, fewer frames per chunk ({frame_num}), {dtype} bfloat16, or more devices"


def dub(
    request: Request, settings: Settings, weights: Weights, mesh: Mesh | None = None, progress: Progress = SILENT
) -> Path:
    """Generates the video chunk by chunk; returns its path.

    Args:
        request: prompt, source image or video, and speech.
        settings: sampling settings and output file.
        weights: an opened checkpoint.
        mesh: the device mesh, from `itjax.parallel.sharding.make_mesh`; by default all devices.
        progress: receives notices and opens a progress bar; by default nothing is printed.

    Raises:
        UserError: if the request or the settings are invalid.
        OutputError: if a file cannot be written. Finished chunks stay saved.
        ComputationError: if the devices' memory is full, or frames are not finite. Finished chunks stay saved.
    """
    preset = weights.preset
    if settings.size not in preset.sizes:
        raise SettingError(f"{{size}} {settings.size}: must be one of {', '.join(preset.sizes)} (preset {preset.name})")
    if not -(2**63) <= settings.seed < 2**63:
        raise SettingError(f"{{seed}} {settings.seed}: must be less than 2^63")
    dtype = jnp.dtype(settings.dtype or default_dtype())
    settings = settings._replace(dtype=dtype)
    _check_outputs(request, settings)
    mesh = make_mesh(heads=preset.networks.dit.num_heads) if mesh is None else mesh
    inputs = open_inputs(request, preset.sizes[settings.size].table, settings.limits)
    chunks = plan([frame_count(len(track)) for track in inputs.tracks], settings.sampler, settings.max_frames)
    noise = _open_noise(inputs, settings, weights)
    if isinstance(noise, NoiseFile):
        noise.check(chunks)
    progress.notice(_summary(inputs, chunks))
    _warn_if_cut_or_padded(inputs, settings, chunks)
    sound = speech.sound_track(request.sounds, request.audio_type)
    size = inputs.height, inputs.width
    identity = fingerprint(inputs, settings, weights)
    target = settings.save_file, size, FPS, sound, identity, settings.resume, settings.save_frames
    with open_writer(*target, num_frames=_total_frames(chunks)) as writer:
        if writer.finished:
            progress.notice(f"{writer.files.video} is already finished: nothing to do")
            return writer.files.video
        check_state(writer, settings.sampler, size, chunks)
        if inputs.masks is not None:
            progress.notice(f"persons are marked in {_save_marked_persons(inputs, inputs.masks, writer.files.video)}")
        if writer.next_chunk < len(chunks):  # else only the finished file is missing: no network is needed
            with jax.set_mesh(mesh), exact_float32():
                _generate(inputs, settings, weights, mesh, noise, chunks, writer, progress)
        video = writer.finish()
        progress.notice(f"wrote {video}")
        return video


def _check_outputs(request: Request, settings: Settings) -> None:
    """Raises UserError if an output would replace one of the inputs."""
    files = run_files.output_files(settings.save_file, settings.save_frames)
    outputs = [files.video, files.array, _marked_persons(files.video)]
    inputs = request.file, request.source, *request.sounds.values(), *(request.masks or ()), settings.noise
    for source in inputs:
        for output in outputs:
            if source and output and os.path.exists(source) and output.exists() and output.samefile(source):
                raise UserError(
                    f"{output} is both an input and an output, and would be replaced. Choose another name for it."
                )


def _open_noise(inputs: Inputs, settings: Settings, weights: Weights) -> SeededNoise | NoiseFile:
    vae = weights.preset.networks.vae
    grid = inputs.height // vae.spatial_stride, inputs.width // vae.spatial_stride
    shape = (settings.sampler.num_latents, *grid, vae.z_dim)
    return NoiseFile(settings.noise, shape) if settings.noise else SeededNoise(settings.seed, shape)


def _total_frames(chunks: list[ChunkPlan]) -> int:
    return chunks[-1].start + chunks[-1].kept.stop


def _summary(inputs: Inputs, chunks: list[ChunkPlan]) -> str:
    frames, count = _total_frames(chunks), f"{len(chunks)} chunk{'s' if len(chunks) > 1 else ''}"
    return f"{frames} frames ({frames / FPS:.2f} s) of {inputs.width}x{inputs.height} in {count}"


def _warn_if_cut_or_padded(inputs: Inputs, settings: Settings, chunks: list[ChunkPlan]) -> None:
    """Warns if the video ends before the speech, or the source before the video."""
    frames, speech_frames = _total_frames(chunks), max(frame_count(len(track)) for track in inputs.tracks)
    if frames < speech_frames - END_TOLERANCE:
        warnings.warn(
            f"the speech lasts {speech_frames / FPS:.2f} s, but the video is cut to {frames / FPS:.2f} s "
            "(for all of it, use --mode streaming and a larger --max_frame_num)",
            stacklevel=2,
        )
    source_frames = inputs.source.num_frames
    if source_frames is not None and source_frames < _source_frames_read(settings.sampler, chunks):
        warnings.warn(
            f"the source lasts {source_frames / FPS:.2f} s, the generated video {frames / FPS:.2f} s: "
            "the last source frame is repeated",
            stacklevel=2,
        )


def _source_frames_read(sampler: Sampler, chunks: list[ChunkPlan]) -> int:
    """The number of the last source frame that a chunk's reference is made of, plus one."""
    after = {"i2v": 0, "soft": chunks[-1].start, "fl2v": chunks[-1].start + sampler.frame_num - 1}
    return after[sampler.strategy] + 1


def _save_marked_persons(inputs: Inputs, masks: np.ndarray, video: Path) -> Path:
    """Saves the first frame with the persons marked, next to the video."""
    picture = resize_and_crop(inputs.source.frame(0), (inputs.height, inputs.width))
    path = _marked_persons(video)
    with atomic_path(path) as temporary, output_errors(path):
        Image.fromarray(persons.draw_masks(picture, masks)).save(temporary)
    return path


def _marked_persons(video: Path) -> Path:
    return video.with_suffix(".persons.png")


# -- the loop ---------------------------------------------------------------------------------------------------------


def _generate(
    inputs: Inputs, settings: Settings, weights: Weights, mesh: Mesh, noise: SeededNoise | NoiseFile,
    chunks: list[ChunkPlan], writer: VideoWriter, progress: Progress,
) -> None:  # fmt: skip
    """Loads the networks and generates the chunks that `writer` does not have yet."""
    dtypes = jnp.dtype(settings.dtype), jnp.dtype(settings.vae_dtype)
    program = Program(weights.preset.networks, settings.sampler, *dtypes, settings.branches_in_turn)
    with _stage(progress, "text encoder"):
        prompts = encoders.encode_prompts(weights, inputs.request.prompt, mesh, program)
    with _stage(progress, "speech encoder"):
        tracks = _with_silent_tails(inputs.tracks, settings.sampler) if settings.silent_tail else inputs.tracks
        features = encoders.encode_speech(weights, tracks, mesh, program.networks)
    with _stage(progress, "reference encoder"):
        encoder = encoders.open_reference_encoder(weights, mesh, program, once=inputs.source.is_still)
        picture, reference = _reference_at(encoder, inputs, 0)
    with _stage(progress, "DiT"):
        size = weights.preset.sizes[settings.size]
        invariants = encoders.invariants(weights, mesh, encoder, prompts, picture, inputs.masks, size)
    if settings.sampler.teacache_threshold is not None:
        count = int(invariants.steps.run.sum())
        progress.notice(f"TeaCache: the blocks run in {count} of {settings.sampler.steps} steps")
    carry = chunk.first_carry(picture, settings.sampler)
    if writer.state is not None:
        carry = Carry(**{name: jnp.asarray(value) for name, value in writer.state.items()})
        progress.notice(f"resuming after {writer.frames_done} frames")
    window = program.networks.dit.audio.window

    def chunk_inputs() -> Iterator[ChunkInputs]:
        for current in remaining:
            windows = speech_windows(current, features, settings.sampler.frame_num, window)
            current_reference = reference
            if current.number and reference is not None and not inputs.source.is_still:
                current_reference = _reference_at(encoder, inputs, current.start)[1]
            yield ChunkInputs(jnp.asarray(windows), current_reference, jnp.asarray(noise.read(current.number)))

    remaining = chunks[writer.next_chunk :]
    times = [time.perf_counter()]
    steps = progress.bar(len(remaining) * settings.sampler.steps, "step")
    with steps as bar, memory_errors("generating a chunk", LESS_MEMORY):
        bar.describe(f"chunk {writer.next_chunk + 1} of {len(chunks)}")
        results = rollout.streamed(program, invariants, carry, chunk_inputs(), lambda step: bar.advance())
        for current, (state, output) in zip(remaining, results, strict=True):
            pixels = np.asarray(output.pixels)
            if not all(output.finite):
                raise ComputationError(_not_finite(output, current, chunks, writer))
            floats = np.asarray(output.frames)[current.kept] if settings.save_frames else None
            carry_arrays = {name: np.asarray(value) for name, value in state._asdict().items()}
            writer.append(pixels[current.kept], floats, carry_arrays)
            bar.describe(f"chunk {min(current.number + 2, len(chunks))} of {len(chunks)}")
            times.append(time.perf_counter())
    if len(times) > 1:
        progress.notice(_speed(times, settings.sampler))


def _with_silent_tails(tracks: list[np.ndarray], sampler: Sampler) -> list[np.ndarray]:
    """The tracks, each with a chunk of silence behind it, which the last chunk's frames beyond the end hear."""
    return [np.pad(track, (0, sampler.frame_num * SAMPLE_RATE // FPS)) for track in tracks]


@contextlib.contextmanager
def _stage(progress: Progress, name: str) -> Iterator[None]:
    with progress.stage(name), memory_errors(name, LESS_MEMORY):
        yield


def _not_finite(output: ChunkOutput, current: ChunkPlan, chunks: list[ChunkPlan], writer: VideoWriter) -> str:
    step, steps = [bool(finite) for finite in output.finite].index(False), len(output.finite) - 1
    what = f"step {step + 1} of {steps} made latents" if step < steps else "the VAE made frames"
    saved = f"{writer.frames_done} frames are saved in {writer.files.video}" if writer.frames_done else "nothing was saved"
    return (
        f"chunk {current.number + 1} of {len(chunks)}: {what} that are not finite numbers; {saved}. Weights or a LoRA may "
        "be damaged, or guidance or LoRA scales too large."
    )


def _reference_at(encoder: encoders.ReferenceEncoder, inputs: Inputs, start: int) -> tuple[Array, Reference | None]:
    """The source image at frame `start`, and the reference of the chunk that starts there (None with strategy i2v)."""
    sampler, size = encoder.program.sampler, (inputs.height, inputs.width)
    first = inputs.source.frame(start)
    if sampler.strategy == "i2v":
        return encoders.to_picture(first, size), None
    last = inputs.source.frame(start + sampler.frame_num - 1) if sampler.strategy == "fl2v" else None
    return encoders.encode_frame(encoder, first, size, last)


def _speed(times: list[float], sampler: Sampler) -> str:
    """Seconds per chunk and frames per second. The first chunk is separate, as it includes compilation."""
    seconds = np.diff(times)
    if len(seconds) == 1:
        return f"{seconds[0]:.2f} s for one chunk, including compilation"
    later = seconds[1:].mean()
    return (
        f"{later:.2f} s per chunk, {sampler.new_frames / later:.2f} frames per second "
        f"(first chunk, including compilation: {seconds[0]:.2f} s)"
    )
