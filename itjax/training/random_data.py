"""A dataset and a DiT checkpoint of random numbers, to try training without data or weights.

A network can only learn the scale of the noise and memorise the clips, but every part of a run is exercised.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from itjax import records
from itjax.config import Preset, to_json
from itjax.disk import output_errors
from itjax.errors import UserError
from itjax.models import dit
from itjax.records import SPEECH_MARGIN, Bucket, Clip, Dataset, Layout, Shard
from itjax.training.config import Training
from itjax.weights.lazy import LazyTensor
from itjax.weights.sources import open_converted
from itjax.weights.store import save

FOLDER = "made-up"  # in the run's folder; named like the flag
LAYOUT = Layout(frame_num=17, reference_stride=4, chunk_stride=8, regions=True)
CLIPS_PER_SHARD = 3


def create_if_missing(settings: Training, preset: Preset) -> Training:
    """Creates a dataset and a checkpoint in the run's folder if missing, always the same; returns settings with both.

    Raises:
        UserError: If the run has several processes, or samples videos.
        OutputError: If a file cannot be written.
    """
    if settings.processes.cluster or settings.processes.count:
        raise UserError("made-up: only a single process is supported")
    if settings.reports.sample_every:
        every = settings.reports.sample_every
        raise UserError(f"reports.sample-every {every}: must be 0 with made-up weights, which have no VAE to decode videos")
    folder = Path(settings.run) / FOLDER
    data, weights = folder / "dataset", folder / "checkpoint"
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not weights.is_dir():
        write_weights(weights, preset)
    if not (data / "dataset.json").is_file():
        write_dataset(data, preset, LAYOUT, ((32, 64),), checkpoint=open_converted(weights, []).encoders)
    return replace(settings, data=str(data), checkpoint=str(weights))


def write_weights(folder: Path, preset: Preset) -> None:
    """Writes a checkpoint with only the DiT, as initialised."""
    initial = flatten_dict(jax.jit(dit.init, static_argnums=0)(preset.networks.dit, jax.random.key(0)), sep="/")
    read = lambda leaf: lambda index: np.asarray(leaf)[index]
    lazy = {path: LazyTensor(leaf.shape, np.dtype(leaf.dtype), read(leaf)) for path, leaf in initial.items()}
    save(folder, {"dit": unflatten_dict(lazy, sep="/")}, to_json(preset))


def write_dataset(
    folder: Path, preset: Preset, layout: Layout, sizes: Sequence[tuple[int, int]], *, clips: int = 6,
    num_frames: Sequence[int] = (41, 57, 73), persons: int = 1, seed: int = 0, checkpoint: str = "a checkpoint",
) -> Dataset:  # fmt: skip
    """Writes a dataset of `clips` clips of each size (pixels), three per shard, cycling through the lengths `num_frames`."""
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    buckets = []
    for size in sizes:
        lengths = [num_frames[i % len(num_frames)] for i in range(clips)]
        random_clips = [random_clip(i, preset, layout, size, length, persons, seed) for i, length in enumerate(lengths)]
        name = Bucket(*size, persons, ()).name
        with output_errors(folder / name):
            (folder / name).mkdir(exist_ok=True)
        shards = []
        for first in range(0, clips, CLIPS_PER_SHARD):
            path = f"{name}/{first // CLIPS_PER_SHARD:05d}.arrayrecord"
            records.write_shard(
                folder / path, [records.to_records(clip) for clip in random_clips[first : first + CLIPS_PER_SHARD]]
            )
            shards.append(Shard(path, tuple(lengths[first : first + CLIPS_PER_SHARD])))
        buckets.append(Bucket(*size, persons, tuple(shards)))
    dit_sizes = preset.networks.dit
    states = np.random.default_rng(seed).standard_normal((2, dit_sizes.text_len, dit_sizes.text_dim), np.float32)
    states[0, 1:] = 0
    states[1, 5:] = 0
    records.write_null_prompts(folder, states)
    dataset = Dataset(folder, preset, layout, checkpoint, tuple(buckets))
    records.write_dataset(dataset)
    return dataset


def random_clip(
    number: int, preset: Preset, layout: Layout, size: tuple[int, int], num_frames: int, persons: int = 1, seed: int = 0
) -> Clip:  # fmt: skip
    """A clip of standard normal numbers, determined by `number` and `seed`.

    With two persons, each token is randomly assigned to a person or the background; the region is a random part of each
    latent frame.
    """
    rng = np.random.default_rng((seed, number))
    normal = lambda *shape: np.asarray(rng.normal(size=shape), np.float16)
    networks = preset.networks
    starts = records.chunk_starts(num_frames, layout)
    references = records.reference_frames(num_frames, layout)
    grid = size[0] // networks.vae.spatial_stride, size[1] // networks.vae.spatial_stride
    latents = (1 + (layout.frame_num - 1) // networks.vae.time_stride, *grid, networks.dit.out_dim)
    tokens = grid[0] // 2 * (grid[1] // 2)
    masks = None
    if persons == 2:
        masks = np.zeros((3, tokens), np.float16)
        masks[rng.integers(0, 3, tokens), np.arange(tokens)] = 1
    return Clip(
        name=f"film{number}.mp4[0:{num_frames}]",
        num_frames=num_frames,
        chunk_starts=starts,
        chunks=normal(len(starts), *latents),
        reference_frames=references,
        references=normal(len(references), *latents),
        clip_tokens=normal(len(references), networks.clip.tokens, networks.dit.clip_dim),
        speech=normal(persons, num_frames + 2 * SPEECH_MARGIN, networks.dit.audio.layers, networks.dit.audio.channels),
        text=normal(int(rng.integers(1, 12)), networks.dit.text_dim),
        ends=normal(len(starts), *latents) if layout.ends else None,
        regions=(rng.random((len(starts), *latents[:-1])) < 0.2).astype(np.float16) if layout.regions else None,
        masks=masks,
    )
