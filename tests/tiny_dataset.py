"""A dataset of random clips for the tiny preset: what training tests read where no network has to have made it."""

from pathlib import Path

import numpy as np

from configs.tiny import PRESET
from itjax import records
from itjax.records import SPEECH_MARGIN, Bucket, Clip, Dataset, Layout, Shard

LAYOUT = Layout(frame_num=17, reference_stride=4, chunk_stride=8)
SIZES = ((32, 64), (48, 48))


def random_clip(number: int, size: tuple[int, int], num_frames: int, layout=LAYOUT, persons=1, ends=True, seed=0) -> Clip:
    rng = np.random.default_rng((seed, number))
    normal = lambda *shape: rng.normal(size=shape).astype(np.float16)
    dit = PRESET.networks.dit
    starts = records.chunk_starts(num_frames, layout)
    references = records.reference_frames(num_frames, layout)
    latents = ((layout.frame_num - 1) // 4 + 1, size[0] // 8, size[1] // 8, dit.out_dim)
    tokens = size[0] // 16 * (size[1] // 16)
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
        clip_tokens=normal(len(references), PRESET.networks.clip.tokens, dit.clip_dim),
        speech=normal(persons, num_frames + 2 * SPEECH_MARGIN, dit.audio.layers, dit.audio.channels),
        text=normal(int(rng.integers(1, 12)), dit.text_dim),
        ends=normal(len(starts), *latents) if ends else None,
        masks=masks,
    )


def damage_second_clip(path: Path) -> bytes:
    """Zeroes the middle of a shard of three clips, within the second one; what the file held before."""
    whole = path.read_bytes()
    middle = slice(int(len(whole) * 0.4), int(len(whole) * 0.6))
    path.write_bytes(whole[: middle.start] + bytes(middle.stop - middle.start) + whole[middle.stop :])
    return whole


def make_dataset(folder: Path, *, clips=6, num_frames=(41, 57, 73), sizes=SIZES, persons=1, ends=True, seed=0) -> Dataset:
    """`clips` clips of each size, three a shard, their lengths in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    buckets = []
    for size in sizes:
        made = [random_clip(i, size, num_frames[i % len(num_frames)], LAYOUT, persons, ends, seed) for i in range(clips)]
        name = Bucket(*size, persons, ()).name
        (folder / name).mkdir(exist_ok=True)
        shards = []
        for number in range(0, clips, 3):
            path = f"{name}/{number // 3:05d}.arrayrecord"
            records.write_shard(folder / path, [records.to_records(clip) for clip in made[number : number + 3]])
            shards.append(Shard(path, tuple(clip.num_frames for clip in made[number : number + 3])))
        buckets.append(Bucket(*size, persons, tuple(shards)))
    dit = PRESET.networks.dit
    states = np.random.default_rng(seed).normal(size=(2, dit.text_len, dit.text_dim)).astype(np.float32)
    states[0, 1:] = 0
    states[1, 5:] = 0
    records.write_null_prompts(folder, states)
    dataset = Dataset(folder, PRESET, LAYOUT, ends, "a checkpoint", tuple(buckets))
    records.write_dataset(dataset)
    return dataset
