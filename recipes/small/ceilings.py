"""Tells which part of the small model loses what: the portraits of measure.py, made with more and more of the truth.

    python recipes/small/measure.py OUT --split validation --clips 30 --sets portrait
    python recipes/small/ceilings.py OUT [--checkpoint DIR]

Measured in the same way are the true videos, these through the VAE, and videos from true latents with noise of several of
the sampler's times, from which the DiT goes on. OUT gets ceilings.md, a row for each.

    python recipes/small/measure.py OUT --sets dubbed minute
    python recipes/small/ceilings.py OUT --head

tells how well a head follows that knows its source's pose at each chunk's reference only, as a dubbed one does.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float32, UInt8

from itjax import small
from itjax.conditioning.speech_features import frame_count
from itjax.config import VaeSizes
from itjax.configs.small import PRESET
from itjax.evaluation import report
from itjax.evaluation.curves import correlation_of_all
from itjax.evaluation.truths import read_truth
from itjax.evaluation.video import Job, measure
from itjax.evaluation.videos import FrameReader
from itjax.flag_types import positive
from itjax.media.video_file import write_video
from itjax.models import vae
from itjax.parallel.sharding import make_mesh
from itjax.pipeline import encoders
from itjax.pipeline.inputs import open_inputs
from itjax.pipeline.process import exact_float32, keep_compiled_programs
from itjax.pipeline.request import Request
from itjax.sampling import chunk, rollout
from itjax.sampling.chunk import ChunkInputs, Program
from itjax.sampling.noise import SeededNoise
from itjax.sampling.plan import ChunkPlan, plan, speech_windows
from itjax.sampling.schedule import euler_times
from itjax.training import result
from itjax.weights.sources import Weights

# F frames · T latents · h w latent grid · C channels

METRICS = ("sync", "silence", "nod_sync", "brow_sync", "faces_found", "identity", "jitter", "seam")
SIZE = "infinitetalk-480"
CHUNK = PRESET.sampler.frame_num, PRESET.sampler.motion_frames
MOST_FRAMES = 10_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, help="of measure.py")
    parser.add_argument("--checkpoint", type=Path, help="weights (default: those of the package)")
    parser.add_argument(
        "--steps", type=int, nargs="*", default=[6, 5, 3, 0], help="first steps of the DiT (default 6 5 3 0)"
    )
    parser.add_argument("--clips", type=positive, help="at most (default: all)")
    parser.add_argument("--head", action="store_true", help="of the sets dubbed and minute, from their truth alone")
    args = parser.parse_args()
    if args.head:
        for name, part in (("dubbed", "another"), ("minute", "truth")):
            held, between = np.mean([head_from_references(path) for path in (args.out / name / part).glob("*.json")], axis=0)
            print(f"{name}: r with the source {held:.2f} held from reference to reference, {between:.2f} moving evenly")
        return 0
    folder, weights = args.out / "portrait", result.open_weights(args.checkpoint or small.weights_folder())
    stems = [path.stem for path in sorted((folder / "source").glob("*.mp4"))][: args.clips]
    keep_compiled_programs()
    last = weights.preset.sampler.steps - 1  # from noise of 0.003: it changes nothing that is seen
    made = {first: args.out / "ceilings" / f"from{first}" for first in (last, *args.steps)}
    mesh = make_mesh(heads=weights.preset.networks.dit.num_heads)
    with jax.set_mesh(mesh), exact_float32():
        for stem in stems:
            for first, video in generated(weights, mesh, folder, stem, list(made)):
                write_video(made[first] / f"{stem}.mp4", video, None)
    rows = [row("true pictures", folder / "source", folder, stems)]
    for first, videos in made.items():
        name = "true latents" if first == last else f"noise {times(weights)[first]:.2f}"
        rows.append(row(name, videos, folder, stems))
    table = "\n".join([f"| | {' | '.join(METRICS)} |", "|" + " --- |" * (len(METRICS) + 1), *rows])
    (args.out / "ceilings.md").write_text(table + "\n")
    print(table)
    return 0


def head_from_references(truth: Path) -> tuple[float, float]:
    """The r with the first person's true pose of the one at the last reference, and of one interpolated between references.

    A chunk's reference is the source's frame at the chunk's start: what comes after it, the second one knows beforehand.
    """
    head = read_truth(truth).tracks[0]
    true = np.concatenate([head.center / np.median(head.size), head.pose], axis=1)
    frames, (chunk_frames, shared) = np.arange(len(true)), CHUNK
    references = np.arange(0, len(true), chunk_frames - shared)
    held = true[references[np.searchsorted(references, frames, side="right") - 1]]
    between = np.array([np.interp(frames, references, values[references]) for values in true.T]).T
    return correlation_of_all(held, true), correlation_of_all(between, true)


def row(name: str, made: Path, folder: Path, stems: list[str]) -> str:
    """The mean of each metric over the clips, as a row of the table."""
    measured = [measure(Job(made / f"{stem}.mp4", truth=folder / "truth", chunk=CHUNK)) for stem in stems]
    numbers = report.estimates(measured)
    cells = [f"{numbers[metric].mean:.2f}" if metric in numbers else "-" for metric in METRICS]
    print(name, *cells, file=sys.stderr, flush=True)
    return f"| {name} | {' | '.join(cells)} |"


def times(weights: Weights) -> Float[np.ndarray, " S"]:
    """The noise's share at the start of each step, and zero."""
    return euler_times(weights.preset.sampler.steps, weights.preset.sampler.shift_at(weights.preset.sizes[SIZE])) / 1000


def generated(
    weights: Weights, mesh: Mesh, folder: Path, stem: str, firsts: list[int]
) -> Iterator[tuple[int, UInt8[np.ndarray, "F H W 3"]]]:
    """For each of `firsts`, the video whose chunks start with true latents, mixed with noise, before that step."""
    preset, sampler = weights.preset, weights.preset.sampler
    program = Program(preset.networks, sampler, jnp.dtype("float32"))
    source, prompt = folder / "source", json.loads((folder / "source" / f"{stem}.json").read_text())["prompt"]
    request = Request(prompt, source / f"{stem}.png", {"person1": folder / "sound" / f"{stem}.1.wav"})
    inputs = open_inputs(request, preset.sizes[SIZE].table)
    features = encoders.encode_speech(weights, inputs.tracks, mesh, program.networks)
    encoder = encoders.open_reference_encoder(weights, mesh, program, once=True)
    picture, reference = encoders.encode_frame(encoder, inputs.source.frame(0), (inputs.height, inputs.width))
    prompts = encoders.encode_prompts(weights, prompt, mesh, program)
    invariants = encoders.invariants(weights, mesh, encoder, prompts, picture, None, preset.sizes[SIZE])
    true = FrameReader(source / f"{stem}.mp4").read(MOST_FRAMES)
    chunks = plan([frame_count(len(track)) for track in inputs.tracks], sampler, len(true))
    windows = [speech_windows(each, features, sampler.frame_num, program.networks.dit.audio.window) for each in chunks]
    latents = [encoded(program, encoder.parameters["vae"], true, each) for each in chunks]
    noise = [SeededNoise(1, latents[0].shape).read(each.number) for each in chunks]
    for first in firsts:
        share = times(weights)[first]
        starts = [(1 - share) * clean + share * noisy for clean, noisy in zip(latents, noise, strict=True)]
        given = [ChunkInputs(jnp.asarray(heard), reference, start) for heard, start in zip(windows, starts, strict=True)]
        left = invariants._replace(steps=jax.tree.map(lambda values, first=first: values[first:], invariants.steps))
        outputs = rollout.streamed(program, left, chunk.first_carry(picture, sampler), given)
        kept = [np.asarray(each.pixels)[now.kept] for now, (_, each) in zip(chunks, outputs, strict=True)]
        yield first, np.concatenate(kept)


def encoded(program: Program, parameters: dict, video: np.ndarray, current: ChunkPlan) -> Float32[jax.Array, "T h w C"]:
    """The latents of a chunk's true frames; beyond the end of the video the last one is repeated."""
    numbers = np.minimum(current.start + np.arange(program.sampler.frame_num), len(video) - 1)
    return _encode(program.networks.vae, parameters, jnp.asarray(video[numbers] / np.float32(127.5) - 1))


@partial(jax.jit, static_argnums=0)
def _encode(sizes: VaeSizes, parameters: dict, frames: jax.Array) -> jax.Array:
    return vae.encode(parameters, frames[None], sizes)[0]


if __name__ == "__main__":
    sys.exit(main())
