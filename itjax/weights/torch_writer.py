"""Writes tensor files with one tensor in memory at a time; each appears under its name only when it is complete."""

import json
import math
import mmap
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (makes "bfloat16" and "float8_e4m3fn" names that numpy knows)
import numpy as np

from itjax.disk import atomic_path, check_output, output_errors
from itjax.errors import UserError
from itjax.weights.mapping import Shape
from itjax.weights.torch_files import CODES, torch_module

COPY_BYTES = 2**26  # bytes copied at a time if the memory layout of a tensor differs from the file's


class Tensor(NamedTuple):
    """A tensor to write: `read` is called once, when the tensor is written, and must return this shape and dtype."""

    name: str
    shape: Shape
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def write_safetensors(path: Path, tensors: Iterable[Tensor]) -> None:
    """Writes the header, then the tensors one by one, with at most one in memory. An existing file is replaced.

    Raises:
        UserError: if the folder does not exist, or a tensor cannot be read.
        OutputError: if the disk is full.
        ValueError: if a tensor does not match its declared shape or dtype.
    """
    tensors = sorted(tensors, key=lambda tensor: -np.dtype(tensor.dtype).itemsize)  # so that all tensors are aligned
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape, dtype, _ in tensors:
        start, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {"dtype": CODES[np.dtype(dtype).name], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    check_output(path, 8 + len(text) + end)
    with atomic_path(path) as temporary, output_errors(path), temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            _append(file, tensor)


def _append(file: Any, tensor: Tensor) -> None:
    """Writes the values in C order. A transposed view is copied block by block, not as a whole."""
    try:
        values = tensor.read()
    except OSError as error:
        raise UserError(f"cannot read {tensor.name}: {error}") from error
    if values.shape != tuple(tensor.shape) or values.dtype != tensor.dtype:
        raise ValueError(
            f"{tensor.name} was declared as {tensor.dtype}{list(tensor.shape)} but is {values.dtype}{list(values.shape)}"
        )
    rows = max(1, COPY_BYTES * len(values) // max(1, values.nbytes)) if values.ndim else 1
    for block in (values[i : i + rows] for i in range(0, len(values), rows)) if values.ndim else [values]:
        file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)


def write_sharded(folder: Path, stem: str, tensors: Iterable[Tensor], shard_bytes: int = 5 * 10**9) -> None:
    """Writes the shards `stem`-00001-of-0000N.safetensors, and finally the index `stem`.safetensors.index.json.

    A shard has at most `shard_bytes` of tensors, but at least one tensor. The folder is created if its parent exists.

    Raises:
        UserError, OutputError, ValueError: as in `write_safetensors`.
    """
    tensors = list(tensors)
    total = sum(tensor.nbytes for tensor in tensors)
    shards: list[list[Tensor]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(t.nbytes for t in shards[-1]) + tensor.nbytes > shard_bytes:
            shards.append([])
        shards[-1].append(tensor)
    check_output(folder, total)
    index = folder / f"{stem}.safetensors.index.json"
    with output_errors(folder):
        folder.mkdir(exist_ok=True)
        index.unlink(missing_ok=True)  # an old index would not match a partial set of new shards
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / name, shard)
        weight_map |= {tensor.name: name for tensor in shard}
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    with atomic_path(index) as temporary, output_errors(index):
        temporary.write_text(json.dumps(content, indent=2) + "\n")


class _PageReleasingFile:
    """A file for torch.save that releases the pages of the source mapping as soon as they are written.

    torch.save turns an OSError in `write` into a RuntimeError without the cause, so `error` keeps it.
    """

    def __init__(self, file: Any, source: mmap.mmap):
        self.file, self.source = file, source
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            for start in range(0, len(data), COPY_BYTES):
                self.file.write(data[start : start + COPY_BYTES])
                self.source.madvise(mmap.MADV_DONTNEED)
        except OSError as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        self.file.flush()


def write_pth(path: Path, tensors: Iterable[Tensor]) -> None:
    """Saves {name: tensor} with torch.save, with about one tensor in memory.

    torch.save needs all tensors at once, so they are backed by a memory-mapped anonymous temporary file. This needs twice
    the file's size in free disk space.

    Raises:
        UserError, OutputError, ValueError: as in `write_safetensors`.
    """
    torch, tensors = torch_module(), list(tensors)
    check_output(path, 2 * sum(tensor.nbytes for tensor in tensors))
    with atomic_path(path) as temporary, output_errors(path), tempfile.TemporaryFile(dir=temporary.parent) as scratch:
        offsets = []
        for tensor in tensors:
            scratch.write(bytes(-scratch.tell() % 64))
            offsets.append(scratch.tell())
            _append(scratch, tensor)
        scratch.write(b"\0")  # an empty file cannot be mapped
        scratch.flush()
        source = mmap.mmap(scratch.fileno(), 0, access=mmap.ACCESS_COPY)
        state = {}
        for tensor, offset in zip(tensors, offsets, strict=True):
            dtype, count = getattr(torch, np.dtype(tensor.dtype).name), math.prod(tensor.shape)
            flat = torch.frombuffer(source, dtype=dtype, count=count, offset=offset) if count else torch.empty(0)
            state[tensor.name] = flat.to(dtype).reshape(tensor.shape)
        with temporary.open("wb") as file:
            sink = _PageReleasingFile(file, source)
            try:
                torch.save(state, sink)
            except RuntimeError as error:
                raise sink.error or error from None
