"""Training records: preprocessed clips in ArrayRecord shards, and the dataset that lists them.

A clip is the video between two cuts. Chunks are selected when a clip is read, so that a reference may come from outside
the chunk. Therefore latents are stored for every possible chunk of a clip (each encoded from its own first frame, as the
VAE is causal), and for every possible reference frame. Each of these is a separate record: a training example reads only
one chunk and one reference, a small part of its clip.
"""

import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import grain
import numpy as np
import safetensors.numpy
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import Float16, Float32, Int32

from itjax.config import Preset, to_json
from itjax.disk import atomic_path, output_errors
from itjax.errors import OutputError, UserError
from itjax.input_files import read_json
from itjax.preset_json import preset_from_json
from itjax.weights.safetensors_files import DTYPES

# n chunks · m references · T latent frames · h w latent grid · P persons · G persons and background · F frames
# N layers of the speech encoder · X text tokens · Y CLIP tokens · S tokens per latent frame

INDEX_BYTES = 256_000_000  # of dataset.json, which has one number per clip
VERSION = 2
SPEECH_MARGIN = 2  # frames of speech stored beyond each end of a clip: half the audio adapter's window
PROMPTS_FILE = "prompts.safetensors"
LAZY_FIELDS = ("chunks", "references", "clip_tokens", "ends", "regions")  # fields of a clip whose rows are read on demand


@dataclass(frozen=True)
class Layout:
    """The contents of a clip's records: its chunks and reference frames.

    A chunk of `frame_num` frames begins every `chunk_stride` frames, and every `reference_stride`-th frame can be a
    reference (including the first and last frame of each chunk). `ends`: also store the conditioning latents of FL2V;
    `regions`: also store the image regions in which the loss may have a larger weight.

    Raises:
        UserError: if `frame_num` is not 4n+1 and at least 5, or `reference_stride` does not divide both `chunk_stride` and
            `frame_num` - 1.
    """

    frame_num: int = 81
    reference_stride: int = 20
    chunk_stride: int = 40
    ends: bool = False
    regions: bool = False

    def __post_init__(self):
        if self.frame_num < 5 or self.frame_num % 4 != 1:
            raise UserError(f"--frame_num {self.frame_num}: must be 4n+1 and at least 5")
        if self.reference_stride < 1 or self.chunk_stride % self.reference_stride or self.chunk_stride < 1:
            raise UserError(f"--reference_stride {self.reference_stride} must divide --chunk_stride {self.chunk_stride}")
        if (self.frame_num - 1) % self.reference_stride:
            raise UserError(
                f"--reference_stride {self.reference_stride} must divide --frame_num - 1 = {self.frame_num - 1}, so that "
                "the last frame of a chunk can be a reference"
            )


def chunk_starts(num_frames: int, layout: Layout) -> Int32[np.ndarray, " n"]:
    """First frames of all chunks that fit in the clip."""
    return np.arange(0, num_frames - layout.frame_num + 1, layout.chunk_stride, dtype=np.int32)


def reference_frames(num_frames: int, layout: Layout) -> Int32[np.ndarray, " m"]:
    """All frames that can be a reference."""
    return np.arange(0, num_frames, layout.reference_stride, dtype=np.int32)


class LazyRows:
    """An array of `shape` whose rows (first axis) are read on demand with `read`(row number, number of bytes)."""

    dtype = np.dtype(np.float16)

    def __init__(self, shape: tuple[int, ...], read: Callable[[int, int], bytes]):
        self.shape, self._read = shape, read

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: SupportsIndex) -> Float16[np.ndarray, "..."]:
        number = range(len(self))[index]  # supports negative indices, raises IndexError
        data = self._read(number, math.prod(self.shape[1:]) * self.dtype.itemsize)
        return np.frombuffer(data, self.dtype).reshape(self.shape[1:])

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.__getitem__, range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.stack(list(self)).astype(dtype or self.dtype)


class Clip(NamedTuple):
    """A whole clip at 25 fps. `name` is its origin, with a range of frames: "film.mp4[120:620]".

    `references` are latents of [frame, zeros ...] with the length of a chunk, `ends` those of [first, zeros ..., last] of
    each chunk (None if not in the layout). `speech` begins SPEECH_MARGIN frames before the clip. `text` is cut to the
    caption's length. `masks` are those of two persons and the background, on the token grid. `regions`: the fraction 0..1
    of each latent cell of each chunk in which the loss may have a larger weight (a face, a mouth).
    """

    name: str
    num_frames: int
    chunk_starts: Int32[np.ndarray, " n"]
    chunks: Float16[np.ndarray, "n T h w C"] | LazyRows
    reference_frames: Int32[np.ndarray, " m"]
    references: Float16[np.ndarray, "m T h w C"] | LazyRows
    clip_tokens: Float16[np.ndarray, "m Y Dc"] | LazyRows
    speech: Float16[np.ndarray, "P F N C"]
    text: Float16[np.ndarray, "X Dt"]
    ends: Float16[np.ndarray, "n T h w C"] | LazyRows | None = None
    regions: Float16[np.ndarray, "n T h w"] | LazyRows | None = None
    masks: Float16[np.ndarray, "G S"] | None = None


def record_count(num_frames: int, layout: Layout) -> int:
    """Number of records of a clip."""
    chunks, references = len(chunk_starts(num_frames, layout)), len(reference_frames(num_frames, layout))
    return 1 + (1 + layout.ends + layout.regions) * chunks + 2 * references


def to_records(clip: Clip) -> list[bytes]:
    """Serialises the clip to records: first a safetensors file, then every row of the LAZY_FIELDS.

    The file's metadata contains the clip's name and length and the shapes of the LAZY_FIELDS.
    """
    arrays = {name: np.ascontiguousarray(x) for name, x in clip._asdict().items() if isinstance(x, np.ndarray | LazyRows)}
    parts = {name: arrays.pop(name) for name in LAZY_FIELDS if name in arrays}
    shapes = {name: array.shape for name, array in parts.items()}
    # a single key: safetensors writes several keys in arbitrary order, but equal clips must give equal bytes
    metadata = {"clip": json.dumps({"name": clip.name, "num_frames": clip.num_frames, "parts": shapes})}
    return [safetensors.numpy.save(arrays, metadata), *(part.tobytes() for array in parts.values() for part in array)]


def from_records(data: bytes, read: Callable[[int, int], bytes]) -> Clip:
    """Deserialises the clip whose first record is `data`; `read`(n, bytes) returns the n-th following record.

    Raises:
        ValueError: if `data` is not the first record of a clip, or has other fields.
    """
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        metadata = json.loads(header.pop("__metadata__")["clip"])
        fields: dict[str, Any] = {name: _view(data, start, entry) for name, entry in header.items()}
        first = 1
        for name, shape in metadata["parts"].items():
            fields[name] = LazyRows(tuple(shape), partial(_nth, read, first))
            first += shape[0]
        return Clip(metadata["name"], metadata["num_frames"], **fields)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a record of a clip: {error!r}") from error


def _nth(read: Callable[[int, int], bytes], first: int, number: int, nbytes: int) -> bytes:
    return read(first + number, nbytes)


def _view(data: bytes, start: int, entry: dict[str, Any]) -> np.ndarray:
    """An array of a safetensors file in memory whose values begin at `start`. Raises ValueError if it is truncated."""
    dtype, (begin, end) = np.dtype(DTYPES[entry["dtype"]]), entry["data_offsets"]
    count = math.prod(entry["shape"])
    if end - begin != count * dtype.itemsize:
        raise ValueError(f"{end - begin} bytes for {entry['dtype']}{entry['shape']}")
    return np.frombuffer(data, dtype, count, start + begin).reshape(entry["shape"])


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


def write_shard(path: Path, clips: Iterable[Iterable[bytes]]) -> None:
    """Writes the records of clips to one file, which appears only when it is complete.

    Raises:
        OutputError: if writing fails (full disk).
    """
    with atomic_path(path) as temporary, output_errors(path):
        # one record per group, as single records are read at random; no compression, as float16 noise does not compress
        writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
        try:
            for data in itertools.chain.from_iterable(clips):
                writer.write(data)
            writer.close()
        except RuntimeError as error:  # the library's exception for I/O errors
            raise OutputError(f"cannot write {path}: {error}") from error
        with temporary.open("rb") as file:
            os.fsync(file.fileno())


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
    path = dataset.folder / "dataset.json"
    with atomic_path(path) as temporary, output_errors(path), temporary.open("w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


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
    content = read_json(path, INDEX_BYTES)
    try:
        if content["version"] != VERSION:
            raise UserError(
                f"{path} has version {content['version']}, but this code reads version {VERSION}: prepare the dataset again"
            )
        buckets = tuple(
            Bucket(entry["height"], entry["width"], entry["persons"], tuple(_shard(shard) for shard in entry["shards"]))
            for entry in content["buckets"]
        )
        preset, layout = preset_from_json(content["preset"]), Layout(**content["layout"])
        dataset = Dataset(folder, preset, layout, content["checkpoint"], buckets)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}): prepare the dataset again") from error
    for bucket in buckets:
        for shard in bucket.shards:
            if not (folder / shard.path).is_file():
                raise UserError(f"{folder / shard.path} is missing, but {path} lists it: prepare the dataset again")
    return dataset


def _shard(content: dict[str, Any]) -> Shard:
    return Shard(content["path"], tuple(content["num_frames"]))


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


class Records:
    """The clips of one bucket by number, for grain. Files are opened on demand, separately in every process."""

    def __init__(self, dataset: Dataset, bucket: Bucket):
        count = partial(record_count, layout=dataset.layout)
        self._locations: list[tuple[Path, int]] = []  # the file of each clip, and the number of its first record
        for shard in bucket.shards:
            ends = itertools.accumulate(map(count, shard.num_frames))
            self._locations += [(dataset.folder / shard.path, first) for first in (0, *ends)][:-1]
        self._sources: dict[Path, grain.sources.ArrayRecordDataSource] = {}

    def __len__(self) -> int:
        return len(self._locations)

    def __getitem__(self, index: int) -> Clip:
        """The clip; its LAZY_FIELDS are read on demand.

        Raises:
            UserError: if the record cannot be read; the message names the file and the record. LAZY_FIELDS raise likewise.
        """
        path, first = self._locations[index]
        data = self._read(path, first)
        try:
            return from_records(data, lambda number, nbytes: self._read(path, first + number, nbytes))
        except ValueError as error:
            raise _unreadable(path, first, error) from error

    def _read(self, path: Path, record: int, nbytes: int | None = None) -> bytes:
        try:
            if path not in self._sources:
                self._sources[path] = grain.sources.ArrayRecordDataSource([str(path)])
            data = self._sources[path][record]
        except Exception as error:  # the library raises bare Exceptions and RuntimeErrors for damaged files
            raise _unreadable(path, record, error) from error
        if nbytes is not None and len(data) != nbytes:
            raise _unreadable(path, record, f"{len(data)} bytes instead of {nbytes}")
        return data

    def __repr__(self) -> str:
        return f"Records({len(self)} clips)"

    def __getstate__(self) -> dict[str, Any]:
        return {"_locations": self._locations, "_sources": {}}


def _unreadable(path: Path, record: int, reason: object) -> UserError:
    return UserError(
        f"{path}: record {record} cannot be read ({reason}). Delete this file and dataset.json, then prepare the dataset "
        "again, which recreates only the missing file."
    )
