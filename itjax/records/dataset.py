"""The files of a dataset besides its shards: `dataset.json`, which lists them, and the encoded null prompts."""

import json
import os
import reprlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from jaxtyping import Float32

from itjax.config import Preset, to_json
from itjax.disk import atomic_path, output_errors, write_text
from itjax.errors import UserError
from itjax.input_files import read_json
from itjax.preset_json import preset_from_json
from itjax.records.layout import Layout

# X text tokens

VERSION = 2
DATASET_BYTES = 1_000_000_000  # of dataset.json, which has a number for each clip
PROMPTS_FILE = "prompts.safetensors"


@dataclass(frozen=True)
class Shard:
    """An ArrayRecord file, relative to the dataset's folder, and the number of frames of each of its clips."""

    path: str
    num_frames: tuple[int, ...]


@dataclass(frozen=True)
class Bucket:
    """Clips with the same frame size (pixels) and number of persons, which can share a batch."""

    height: int
    width: int
    persons: int
    shards: tuple[Shard, ...]

    @property
    def name(self) -> str:
        """The bucket's folder in the dataset: height, width and number of persons, such as "480x832-p1"."""
        return f"{self.height}x{self.width}-p{self.persons}"

    @property
    def num_frames(self) -> tuple[int, ...]:
        """Number of frames of each clip, in the order of the shards."""
        return tuple(frames for shard in self.shards for frames in shard.num_frames)


@dataclass(frozen=True)
class Dataset:
    """The contents of `dataset.json`. `checkpoint`: identity of the networks that encoded the records."""

    folder: Path
    preset: Preset
    layout: Layout
    checkpoint: str
    buckets: tuple[Bucket, ...]


def write_dataset(dataset: Dataset) -> None:
    """Writes dataset.json atomically.

    Raises:
        OutputError: if writing fails.
    """
    content = {
        "version": VERSION,
        "preset": to_json(dataset.preset),
        "layout": asdict(dataset.layout),
        "checkpoint": dataset.checkpoint,
        "buckets": [asdict(bucket) for bucket in dataset.buckets],
    }
    write_text(dataset.folder / "dataset.json", json.dumps(content, indent=1))


def open_dataset(folder: str | Path) -> Dataset:
    """Reads dataset.json and checks that the shards it lists exist.

    Raises:
        UserError: if there is no dataset, it is damaged or of another version, or a shard is missing.
    """
    folder = Path(folder)
    path = folder / "dataset.json"
    if not os.path.lexists(path):
        raise UserError(
            f"{folder} is not a dataset: it contains no dataset.json. Create one with `python -m itjax.preparation VIDEOS "
            f"{folder}`, which also continues a stopped preparation."
        )
    content = read_json(path, max_bytes=DATASET_BYTES)
    try:
        version = content["version"]
        dataset = _from_json(folder, content) if version == VERSION else None
    except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}): prepare the dataset again") from error
    if dataset is None:
        raise UserError(f"{path} has version {version}, but this code reads version {VERSION}: prepare the dataset again")
    for bucket in dataset.buckets:
        for shard in bucket.shards:
            if not (folder / shard.path).is_file():
                raise UserError(f"{folder / shard.path} is missing, but {path} lists it: prepare the dataset again")
    return dataset


def _from_json(folder: Path, content: dict[str, Any]) -> Dataset:
    layout = Layout(**{key: _checked(int, value) for key, value in content["layout"].items()})
    buckets = tuple(
        Bucket(
            _checked(int, entry["height"]),
            _checked(int, entry["width"]),
            _checked(int, entry["persons"]),
            tuple(_shard(shard) for shard in entry["shards"]),
        )
        for entry in content["buckets"]
    )
    return Dataset(folder, preset_from_json(content["preset"]), layout, _checked(str, content["checkpoint"]), buckets)


def _shard(content: dict[str, Any]) -> Shard:
    return Shard(_checked(str, content["path"]), tuple(_checked(int, frames) for frames in content["num_frames"]))


def _checked(kind: type, value: Any) -> Any:
    """Returns `value`. Raises ValueError if it is not of this kind, or a number that is negative or beyond any length."""
    if not isinstance(value, kind) or (isinstance(value, int) and not 0 <= value < 2**31):
        raise ValueError(f"{reprlib.repr(value)} should be {'a text' if kind is str else 'a whole number'}")
    return value


def write_null_prompts(folder: Path, states: Float32[np.ndarray, "2 X Dt"]) -> None:
    """Saves the text states of "" and of the negative prompt.

    Raises:
        OutputError: if writing fails.
    """
    path = folder / PROMPTS_FILE
    with atomic_path(path) as temporary, output_errors(path):
        # not save_file, whose output is readable only by the owner
        temporary.write_bytes(safetensors.numpy.save({"states": np.ascontiguousarray(states)}))


def null_prompts(dataset: Dataset) -> Float32[np.ndarray, "2 X Dt"]:
    """Text states of "" (which replaces dropped text) and of the negative prompt, zero beyond their ends.

    Raises:
        UserError: if the file is missing, or the shape is wrong.
    """
    path = dataset.folder / PROMPTS_FILE
    try:
        states = safetensors.numpy.load_file(path)["states"]
    except (OSError, KeyError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}): prepare the dataset again") from error
    expected = (2, dataset.preset.networks.dit.text_len, dataset.preset.networks.dit.text_dim)
    if states.shape != expected:
        shapes = f"the states have the shape {list(states.shape)}, but the preset needs {list(expected)}"
        raise UserError(f"{path}: {shapes}: prepare the dataset again")
    return states
