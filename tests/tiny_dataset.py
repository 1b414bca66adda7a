"""A dataset of random clips for the tiny preset: what training tests read where no network has to have made it."""

from dataclasses import replace
from pathlib import Path

from itjax.configs.tiny import PRESET
from itjax.records import Clip, Dataset
from itjax.training import random_data

LAYOUT = replace(random_data.LAYOUT, ends=True)
SIZES = ((32, 64), (48, 48))


def random_clip(number: int, size: tuple[int, int], num_frames: int, layout=LAYOUT, persons=1, seed=0) -> Clip:
    return random_data.random_clip(number, PRESET, layout, size, num_frames, persons, seed)


def damage_second_clip(path: Path) -> bytes:
    """Zeroes the middle of a shard of three clips, within the second one; what the file held before."""
    whole = path.read_bytes()
    middle = slice(int(len(whole) * 0.4), int(len(whole) * 0.6))
    path.write_bytes(whole[: middle.start] + bytes(middle.stop - middle.start) + whole[middle.stop :])
    return whole


def make_dataset(folder: Path, *, sizes=SIZES, layout=LAYOUT, **changed) -> Dataset:
    """Six clips of each size, three a shard, their lengths in turn."""
    return random_data.write_dataset(folder, PRESET, layout, sizes, **changed)
