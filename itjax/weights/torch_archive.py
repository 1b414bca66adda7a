"""Reads the zip archives that `torch.save` writes (.pth), without torch, slice by slice. No file can run code.

An archive holds a pickle, which says where each tensor is, and the values of each storage, uncompressed. The pickle is read
with an unpickler that finds the names of tensors and nothing else. Values are read from their places in the file when they
are needed, and compared with the checksum (CRC-32) of their storage when it is first read, which torch does not do.
"""

import io
import math
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (makes "bfloat16" and "float8_e4m3fn" names that numpy knows)
import numpy as np

from itjax.errors import UserError
from itjax.weights.lazy import LazyTensor
from itjax.weights.mapping import Index, Shape
from itjax.weights.safetensors_files import SAFETENSORS_CODES, read_rows

ARCHIVE_START = b"PK\x03\x04"
MAX_PICKLE_BYTES = 2**26  # that of the largest official file has less than a hundredth
CHECK_BYTES = 2**24  # bytes read at a time to compute a checksum
LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip entry: the lengths of its name and extra field, which precede the data
STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool",
}  # fmt: skip
ANY_DTYPE = "UntypedStorage"  # whose tensors name their dtypes


class Name(str):
    """A name of torch's in a pickle. Called with the parts of an unusual tensor, it stands for that tensor."""

    __slots__ = ()

    def __call__(self, *_: Any) -> "Name":
        """The name itself."""
        return self


class Place(NamedTuple):
    """Where the values of a storage are in the file, and whether they have a checksum."""

    position: int
    nbytes: int
    checksum: int


class Storage(NamedTuple):
    """A storage as the pickle names it; the dtype is None if each of its tensors names its own."""

    place: Place
    dtype: str | None


class Checksums:
    """The checksums of the storages in a file, each compared once.

    `pending`: {position of a storage: its place}. Empty if the file has no checksums.
    """

    def __init__(self, path: Path, pending: dict[int, Place]):
        self.path, self.pending = path, pending

    def check(self, name: str, position: int) -> None:
        """Compares the checksum of the storage at `position`, that of the tensor `name`, unless this was done before.

        Raises:
            UserError: if it differs, or the file cannot be read or became shorter.
        """
        place = self.pending.get(position)
        if place is None:
            return
        found = 0
        for start in range(0, place.nbytes, CHECK_BYTES):
            nbytes = min(CHECK_BYTES, place.nbytes - start)
            found = zlib.crc32(read_rows(self.path, position + start, (nbytes,), np.dtype(np.uint8), ()).data, found)
        if found != place.checksum:
            raise UserError(f"{self.path} is damaged: the values of {name} do not match their checksum; download it again")
        self.pending.pop(position, None)


class Stored(NamedTuple):
    """A tensor in a file: the position of its storage, its first number and strides (in numbers) therein, its checksum."""

    path: Path
    position: int
    offset: int
    strides: Shape
    shape: Shape
    dtype: np.dtype
    checksums: Checksums

    def lazy(self, name: str) -> LazyTensor:
        """The tensor by its name, which messages have."""
        return LazyTensor(self.shape, self.dtype, partial(_read, name, self), self.path)


def read_archive(path: Path) -> Any:
    """What was saved: a plain tensor as `Stored`, any other as the `Name` of what torch would make it with.

    Raises:
        UserError: if the file is compressed, too large a part of it is no tensor, or its byte order is another.
        pickle.UnpicklingError: if its pickle needs other names than those of tensors.
        Exception: of many types, if it is damaged.
    """
    content, places = _entries(path)
    for code, argument, _ in pickletools.genops(content):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > len(content):
            raise UserError(f"{path} is damaged: its pickle numbers more objects than it has")  # would need their memory
    has_checksums = any(place.checksum for place in places.values())  # torch can be told not to compute any
    pending = {place.position: place for place in places.values()} if has_checksums else {}
    return _Reader(io.BytesIO(content), path, places, Checksums(path, pending)).load()


def _entries(path: Path) -> tuple[bytes, dict[str, Place]]:
    """The pickle and {key: place} of the storages; the other entries are checked here.

    Raises:
        UserError: see `read_archive`.
        zipfile.BadZipFile: if the file is damaged.
    """
    content, places = None, {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise UserError(f"{path} is compressed, so its values cannot be read in place: save it with torch.save")
            file.seek(entry.header_offset)
            lengths = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
            position = entry.header_offset + LOCAL_HEADER.size + sum(lengths)
            name = entry.filename.partition("/")[2]
            if name.startswith("data/"):
                places[name.removeprefix("data/")] = Place(position, entry.file_size, entry.CRC)
                continue
            if entry.file_size > MAX_PICKLE_BYTES:
                raise UserError(f"{path} is not a file of tensors: {entry.filename} has {entry.file_size} bytes")
            file.seek(position)
            # zipfile compares checksums, also one that torch was told not to compute, which is 0
            found = archive.read(entry) if entry.CRC else file.read(entry.file_size)
            if name == "byteorder" and found != b"little":
                raise UserError(f"{path} was saved with another byte order: save it again on a machine with the usual one")
            content = found if name == "data.pkl" else content
    if content is None:
        raise UserError(f"{path} is not a file of tensors: it has no data.pkl")
    return content, places


class _Reader(pickle.Unpickler):
    """Finds the names that tensors need, in forms that can do nothing else."""

    def __init__(self, file: io.BytesIO, path: Path, places: dict[str, Place], checksums: Checksums):
        super().__init__(file)
        self.path, self.places, self.checksums = path, places, checksums

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            return self.tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return self.parameter
        if module in ("torch", "torch._utils", "torch.storage", "torch.serialization"):
            return Name(name)
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")

    def persistent_load(self, pid: Any) -> Storage | Name:
        """The storage that a tensor names: ("storage", type, key, device, count)."""
        _, kind, key, *_ = pid
        return Storage(self.places[key], None if kind == ANY_DTYPE else STORAGES.get(kind, kind))

    def parameter(self, tensor: Stored | Name, *_: Any) -> Stored | Name:
        """The tensor of a torch.nn.Parameter."""
        return tensor

    def tensor(
        self,
        storage: Storage,
        offset: int,
        shape: Shape,
        strides: Shape,
        _grad: Any,
        _hooks: Any,
        dtype: Any = None,
        *_: Any,
    ) -> Stored | Name:
        """A tensor of a storage. After `_hooks`, version 2 has metadata or nothing, and version 3 the dtype."""
        place, name = storage.place, storage.dtype or dtype
        if name not in SAFETENSORS_CODES:
            return Name(name)
        kind = np.dtype(str(name))
        if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in (offset, *shape, *strides)):
            raise ValueError("a tensor has an impossible shape")
        last = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        if math.prod(shape) and (offset + last + 1) * kind.itemsize > place.nbytes:
            raise ValueError("a tensor is longer than its values")
        return Stored(self.path, place.position, offset, tuple(strides), tuple(shape), kind, self.checksums)


def _read(name: str, stored: Stored, index: Index) -> np.ndarray:
    """Reads a slice of the tensor. One whose values are not in order (a transposed view) is read as a whole.

    Raises:
        UserError: if the checksum of its storage differs, or the file cannot be read or became shorter.
    """
    shape, dtype = stored.shape, stored.dtype
    if not math.prod(shape):
        return np.empty(shape, dtype)[index]
    stored.checksums.check(name, stored.position)
    start = stored.position + stored.offset * dtype.itemsize
    if all(stride == math.prod(shape[axis + 1 :]) for axis, stride in enumerate(stored.strides) if shape[axis] > 1):
        return read_rows(stored.path, start, shape, dtype, index)
    count = 1 + sum((length - 1) * stride for length, stride in zip(shape, stored.strides, strict=True))
    values = read_rows(stored.path, start, (count,), dtype, ())
    strides = tuple(stride * dtype.itemsize for stride in stored.strides)
    return np.array(np.lib.stride_tricks.as_strided(values, shape, strides)[index])
