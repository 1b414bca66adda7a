"""Reads torch's pickles (.pth) slice by slice, and checks the checksums of their values. No file can run code.

A .pth file is a zip archive that holds one pickle and, uncompressed, the values of each storage. torch maps these into
memory, where a file that is cut off later ends the process (SIGBUS), and ignores their checksums (CRC-32). So torch reads
only the pickle; the values are read here from their places in the file, and compared with the checksum of their storage when
it is first read.
"""

import importlib
import math
import mmap
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (makes "bfloat16" and "float8_e4m3fn" names that numpy knows)
import numpy as np

from itjax.errors import UserError, first_ten
from itjax.weights.lazy import LazyTensor
from itjax.weights.mapping import Index
from itjax.weights.safetensors_files import SAFETENSORS_CODES, read_rows

TORCH_ENDINGS = (".pth", ".pt", ".bin")
ARCHIVE_START = b"PK\x03\x04"
MAX_PICKLE_BYTES = 2**26  # that of the largest official file has less than a hundredth
CHECK_BYTES = 2**24  # bytes read at a time to compute a checksum
LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip entry: the lengths of its name and extra field, which precede the data


class Checksums:
    """The checksums of the storages in a file, each compared once.

    `pending`: {position of a storage: its entry in the archive}. Empty if the file has no checksums.
    """

    def __init__(self, path: Path, pending: dict[int, zipfile.ZipInfo]):
        self.path, self.pending = path, pending

    def check(self, name: str, position: int) -> None:
        """Compares the checksum of the storage at `position`, that of the tensor `name`, unless this was done before.

        Raises:
            UserError: if it differs, or the file cannot be read or became shorter.
        """
        entry = self.pending.get(position)
        if entry is None:
            return
        found = 0
        for start in range(0, entry.file_size, CHECK_BYTES):
            nbytes = min(CHECK_BYTES, entry.file_size - start)
            found = zlib.crc32(read_rows(self.path, position + start, (nbytes,), np.dtype(np.uint8), ()).data, found)
        if found != entry.CRC:
            raise UserError(f"{self.path} is damaged: the values of {name} do not match their checksum; download it again")
        self.pending.pop(position, None)


class Stored(NamedTuple):
    """Where a tensor is in a file: the position of its storage, and its first number and strides (in numbers) therein."""

    path: Path
    position: int
    offset: int
    strides: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype


def open_pickle(path: Path, key: str | None) -> dict[str, LazyTensor]:
    """The tensors of a torch pickle; `key`: see `open_tensors`.

    Raises:
        UserError: if the pickle needs more than tensors, the file is damaged, or a tensor cannot be used as an array.
    """
    torch = torch_module()
    try:
        with path.open("rb") as file:
            # Files from before torch 1.6 are not zip archives; they cannot be mapped and are kept in memory completely.
            mapped = file.read(4) == ARCHIVE_START
        entries = _archive_entries(path) if mapped else {}
        state = torch.load(path, weights_only=True, mmap=mapped, map_location="cpu")
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():
            reason = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), "other than tensors")
            raise UserError(f"{path} was refused: loading it would run code from the file ({reason[:200]})") from error
        raise UserError(f"{path} is damaged or not a torch file of tensors") from error
    except MemoryError:
        raise
    except Exception as error:  # the loader raises many types of exceptions for damaged files
        raise UserError(f"{path} is damaged, incomplete or not a torch file of tensors: {str(error)[:200]}") from error
    tensors = _named_tensors(path, state, key)
    if not mapped:
        return {name: _lazy(path, tensor, partial(_copy, tensor)) for name, tensor in tensors.items()}
    positions = _positions(path, entries, tensors.values())
    has_checksums = any(entry.CRC for entry in entries.values())  # torch can be told not to compute any
    checksums = Checksums(path, dict(entries) if has_checksums else {})
    return {
        name: _lazy(path, t, partial(_read, name, _stored(path, t, positions), checksums)) for name, t in tensors.items()
    }


def _lazy(path: Path, tensor: Any, read: Callable[[Index], np.ndarray]) -> LazyTensor:
    return LazyTensor(tuple(tensor.shape), _numpy_dtype(tensor), read, path)


def _stored(path: Path, tensor: Any, positions: Mapping[int, int]) -> Stored:
    position = positions.get(tensor.untyped_storage().data_ptr(), 0)  # 0: there are no values
    return Stored(path, position, tensor.storage_offset(), tuple(tensor.stride()), tuple(tensor.shape), _numpy_dtype(tensor))


def _archive_entries(path: Path) -> dict[int, zipfile.ZipInfo]:
    """{position of the data: entry} of the storages in a .pth file; all other entries, such as the pickle, are checked here.

    Raises:
        UserError: if the file is compressed, or too large a part of it is no tensor.
        zipfile.BadZipFile: if the file is damaged.
    """
    storages = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise UserError(f"{path} is compressed, so its values cannot be read in place: save it with torch.save")
            if entry.filename.partition("/")[2].startswith("data/"):
                file.seek(entry.header_offset)
                lengths = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
                storages[entry.header_offset + LOCAL_HEADER.size + sum(lengths)] = entry
            elif entry.file_size > MAX_PICKLE_BYTES:
                raise UserError(f"{path} is not a file of tensors: {entry.filename} has {entry.file_size} bytes")
            elif entry.CRC:
                archive.read(entry)  # raises BadZipFile if the checksum differs
    return storages


def _positions(path: Path, entries: dict[int, zipfile.ZipInfo], tensors: Iterable[Any]) -> dict[int, int]:
    """{address: position in the file} of the tensors' storages.

    torch does not tell where it maps the file, but only one place fits all.

    Raises:
        UserError: if none does.
    """
    storages = [tensor.untyped_storage() for tensor in tensors]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}
    for position in entries if sizes else ():
        start = min(sizes) - position  # of the file, if the first storage is here
        found = {address: address - start for address in sizes if address - start in entries}
        fits = start % mmap.PAGESIZE == 0 and len(found) == len(sizes)
        if fits and all(nbytes <= entries[found[address]].file_size for address, nbytes in sizes.items()):
            return found
    if not sizes:
        return {}
    raise UserError(f"{path} is damaged: its tensors are not where its directory says; download it again")


def _named_tensors(path: Path, state: Any, key: str | None) -> dict[str, Any]:
    torch = torch_module()
    is_tensor = lambda value: isinstance(value, torch.Tensor)
    if key is not None and not (isinstance(state, dict) and state and all(map(is_tensor, state.values()))):
        if not isinstance(state, dict) or key not in state:
            raise UserError(f"{path} has no entry {key!r}, only {first_ten(state if isinstance(state, dict) else [])}")
        state = state[key]
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path} contains no named tensors{f' under {key!r}' if key else ''}")
    others = [str(name) for name, value in state.items() if not is_tensor(value)]
    if others:
        raise UserError(f"{path} does not contain only tensors; they may be nested under one of: {first_ten(others)}")
    unnamed = [name for name in state if not isinstance(name, str)]
    if unnamed:
        raise UserError(f"{path} has tensors whose names are not text: {first_ten(unnamed)}")
    for name, tensor in state.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in SAFETENSORS_CODES or tensor.layout is not torch.strided or tensor.device.type != "cpu":
            what = f"{kind}, {str(tensor.layout).removeprefix('torch.')}, {tensor.device.type}"
            raise UserError(f"{path}: {name} ({what}) is not a plain tensor of numbers: use a file that is not quantised")
    return state


def _numpy_dtype(tensor: Any) -> np.dtype:
    return np.dtype(str(tensor.dtype).removeprefix("torch."))


def _copy(tensor: Any, index: Index) -> np.ndarray:
    """A copy of a slice of a tensor in memory."""
    dtype = _numpy_dtype(tensor)
    part = tensor.detach()[index].contiguous()
    return np.array(part.view(getattr(torch_module(), f"int{8 * dtype.itemsize}")).numpy()).view(dtype)


def _read(name: str, stored: Stored, checksums: Checksums, index: Index) -> np.ndarray:
    """Reads a slice of the tensor. One whose values are not in order (a transposed view) is read as a whole.

    Raises:
        UserError: if the checksum of its storage differs, or the file cannot be read or became shorter.
    """
    shape, dtype = stored.shape, stored.dtype
    if not math.prod(shape):
        return np.empty(shape, dtype)[index]
    checksums.check(name, stored.position)
    start = stored.position + stored.offset * dtype.itemsize
    if all(stride == math.prod(shape[axis + 1 :]) for axis, stride in enumerate(stored.strides) if shape[axis] > 1):
        return read_rows(stored.path, start, shape, dtype, index)
    count = 1 + sum((length - 1) * stride for length, stride in zip(shape, stored.strides, strict=True))
    values = read_rows(stored.path, start, (count,), dtype, ())
    strides = tuple(stride * dtype.itemsize for stride in stored.strides)
    return np.array(np.lib.stride_tricks.as_strided(values, shape, strides)[index])


def torch_module() -> ModuleType:
    """The module torch, imported only when a torch file is read or written.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise UserError("reading and writing .pth files needs torch: pip install itjax[convert]") from error
