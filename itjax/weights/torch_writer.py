"""Files written tensor by tensor, in the memory of one; each appears under its name only when it is complete."""

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

COPY_BYTES = 2**26  # bytes copied at a time where a tensor does not lie in memory as it does in the file


class Tensor(NamedTuple):
    """A tensor to be written: `read` is called once, when its turn comes, and must give this shape and dtype."""

    name: str
    shape: Shape
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def write_safetensors(path: Path, tensors: Iterable[Tensor]) -> None:
    """Writes the header, then tensor after tensor: no more than one is in memory. An existing file is replaced.

    Raises:
        UserError: where there is no such folder, or a tensor cannot be read.
        OutputError: where the disk is full.
        ValueError: where a tensor is unlike its declaration.
    """
    tensors = sorted(tensors, key=lambda tensor: -np.dtype(tensor.dtype).itemsize)  # so that each one is aligned
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
    """Writes the values in C order. A transposed view is copied block by block, not whole."""
    try:
        values = tensor.read()
    except OSError as error:
        raise UserError(f"cannot read {tensor.name}: {error}") from error
    if values.shape != tuple(tensor.shape) or values.dtype != tensor.dtype:
        raise ValueError(
            f"{tensor.name} was to be {tensor.dtype}{list(tensor.shape)} and is {values.dtype}{list(values.shape)}"
        )
    rows = max(1, COPY_BYTES * len(values) // max(1, values.nbytes)) if values.ndim else 1
    for block in (values[i : i + rows] for i in range(0, len(values), rows)) if values.ndim else [values]:
        file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)


def write_sharded(folder: Path, stem: str, tensors: Iterable[Tensor], shard_bytes: int = 5 * 10**9) -> None:
    """Writes `stem`-00001-of-0000N.safetensors and, when all are there, the index `stem`.safetensors.index.json.

    A shard has no more than `shard_bytes` of tensors, but at least one. The folder is made if its parent is there.

    Raises:
        UserError, OutputError, ValueError: as `write_safetensors` does.
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
        index.unlink(missing_ok=True)  # an index beside half of its shards would lie
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / name, shard)
        weight_map |= {tensor.name: name for tensor in shard}
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    with atomic_path(index) as temporary, output_errors(index):
        temporary.write_text(json.dumps(content, indent=2) + "\n")


class _Forgetting:
    """A file for torch.save, which drops the pages of the map that torch reads from as soon as they are written.

    torch.save turns an error of `write` into a RuntimeError that does not say what it was; `error` does.
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
    """torch.save of {name: tensor}, with about one tensor in memory.

    torch wants them all, so it gets them on a map of a nameless scratch file (twice the file's size of free disk is needed
    meanwhile).

    Raises:
        UserError, OutputError, ValueError: as `write_safetensors` does.
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
            kind, count = getattr(torch, np.dtype(tensor.dtype).name), math.prod(tensor.shape)
            flat = torch.frombuffer(source, dtype=kind, count=count, offset=offset) if count else torch.empty(0)
            state[tensor.name] = flat.to(kind).reshape(tensor.shape)
        with temporary.open("wb") as file:
            sink = _Forgetting(file, source)
            try:
                torch.save(state, sink)
            except RuntimeError as error:
                raise sink.error or error from None
