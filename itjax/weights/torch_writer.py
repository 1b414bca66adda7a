"""Writes tensor files with one tensor in memory at a time; each appears under its name only when it is complete."""

import json
import math
import mmap
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (makes "bfloat16" and "float8_e4m3fn" names that numpy knows)
import numpy as np

from itjax.disk import atomic_path, check_output, output_errors
from itjax.errors import UserError
from itjax.weights.lazy import LazyTensor
from itjax.weights.pickle_files import torch_module
from itjax.weights.safetensors_files import SAFETENSORS_CODES

COPY_BYTES = 2**26  # bytes copied at a time if the memory layout of a tensor differs from the file's


def write_safetensors(path: Path, tensors: Mapping[str, LazyTensor]) -> None:
    """Writes the header, then the tensors one by one, with at most one in memory. An existing file is replaced.

    Raises:
        UserError: if the folder does not exist, or a tensor cannot be read.
        OutputError: if the disk is full.
        ValueError: if a tensor does not match its declared shape or dtype.
    """
    # largest items first, so that all tensors are aligned
    ordered = sorted(tensors.items(), key=lambda item: -np.dtype(item[1].dtype).itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        dtype, shape = SAFETENSORS_CODES[np.dtype(tensor.dtype).name], list(tensor.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    check_output(path, 8 + len(text) + end)
    with atomic_path(path) as temporary, output_errors(path), temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in ordered:
            _append(file, name, tensor)


def _append(file: Any, name: str, tensor: LazyTensor) -> None:
    """Writes the values in C order. A transposed view is copied block by block, not as a whole."""
    try:
        values = tensor.read(())
    except OSError as error:
        raise UserError(f"cannot read {name}: {error}") from error
    if values.shape != tuple(tensor.shape) or values.dtype != tensor.dtype:
        raise ValueError(
            f"{name} was declared as {tensor.dtype}{list(tensor.shape)} but is {values.dtype}{list(values.shape)}"
        )
    rows = max(1, COPY_BYTES * len(values) // max(1, values.nbytes)) if values.ndim else 1
    for block in (values[i : i + rows] for i in range(0, len(values), rows)) if values.ndim else [values]:
        file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)


def write_sharded(folder: Path, stem: str, tensors: Mapping[str, LazyTensor], shard_bytes: int = 5 * 10**9) -> None:
    """Writes the shards `stem`-00001-of-0000N.safetensors, and finally the index `stem`.safetensors.index.json.

    A shard has at most `shard_bytes` of tensors, but at least one tensor. The folder is created if its parent exists.

    Raises:
        UserError, OutputError, ValueError: as in `write_safetensors`.
    """
    total = sum(tensor.nbytes for tensor in tensors.values())
    shards: list[dict[str, LazyTensor]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and sum(t.nbytes for t in shards[-1].values()) + tensor.nbytes > shard_bytes:
            shards.append({})
        shards[-1][name] = tensor
    check_output(folder, total)
    index = folder / f"{stem}.safetensors.index.json"
    with output_errors(folder):
        folder.mkdir(exist_ok=True)
        index.unlink(missing_ok=True)  # an old index would not match a partial set of new shards
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / file, shard)
        weight_map |= dict.fromkeys(shard, file)
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


def write_pth(path: Path, tensors: Mapping[str, LazyTensor]) -> None:
    """Saves {name: tensor} with torch.save, with about one tensor in memory.

    torch.save needs all tensors at once, so they are backed by a memory-mapped anonymous temporary file. This needs twice
    the file's size in free disk space.

    Raises:
        UserError, OutputError, ValueError: as in `write_safetensors`.
    """
    torch = torch_module()
    check_output(path, 2 * sum(tensor.nbytes for tensor in tensors.values()))
    with atomic_path(path) as temporary, output_errors(path), tempfile.TemporaryFile(dir=temporary.parent) as scratch:
        offsets = []
        for name, tensor in tensors.items():
            scratch.write(bytes(-scratch.tell() % 64))
            offsets.append(scratch.tell())
            _append(scratch, name, tensor)
        scratch.write(b"\0")  # an empty file cannot be mapped
        scratch.flush()
        source = mmap.mmap(scratch.fileno(), 0, access=mmap.ACCESS_COPY)
        state = {}
        for (name, tensor), offset in zip(tensors.items(), offsets, strict=True):
            dtype, count = getattr(torch, np.dtype(tensor.dtype).name), math.prod(tensor.shape)
            flat = torch.frombuffer(source, dtype=dtype, count=count, offset=offset) if count else torch.empty(0)
            state[name] = flat.to(dtype).reshape(tensor.shape)
        with temporary.open("wb") as file:
            sink = _PageReleasingFile(file, source)
            try:
                torch.save(state, sink)
            except RuntimeError as error:
                raise sink.error or error from None
