"""A clip, and its serialisation to records. No file access."""

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import safetensors.numpy
from jaxtyping import Float16, Int32

from itjax.records.layout import Layout, chunk_starts, reference_frames
from itjax.weights.safetensors_files import DTYPES

# n chunks · m references · T latent frames · h w latent grid · P persons · G persons and background · F frames
# N layers of the speech encoder · X text tokens · Y CLIP tokens · S tokens per latent frame

LAZY_FIELDS = ("chunks", "references", "clip_tokens", "ends", "regions")  # fields of a clip whose rows are read on demand


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
        raise ValueError(f"not a record of a clip: {type(error).__name__}: {error}") from error


def _nth(read: Callable[[int, int], bytes], first: int, number: int, nbytes: int) -> bytes:
    return read(first + number, nbytes)


def _view(data: bytes, start: int, entry: dict[str, Any]) -> np.ndarray:
    """An array of a safetensors file in memory whose values begin at `start`. Raises ValueError if it is truncated."""
    dtype, (begin, end) = np.dtype(DTYPES[entry["dtype"]]), entry["data_offsets"]
    count = math.prod(entry["shape"])
    if end - begin != count * dtype.itemsize:
        raise ValueError(f"{end - begin} bytes for {entry['dtype']}{entry['shape']}")
    return np.frombuffer(data, dtype, count, start + begin).reshape(entry["shape"])
