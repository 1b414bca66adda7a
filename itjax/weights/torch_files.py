"""Reads torch's tensor files slice by slice. Independent of the networks and of JAX.

No file can run code: a safetensors file is a header and bytes, and pickles go through torch's weights-only loader.
"""

import ctypes
import importlib
import json
import math
import mmap
import pickle
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes  # noqa: F401  (makes "bfloat16" and "float8_e4m3fn" names that numpy knows)
import numpy as np

from itjax.errors import UserError
from itjax.weights.lazy import LazyTensor
from itjax.weights.mapping import Index, Shape

DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
    **{"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"},
    **{"U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64"},
}
SAFETENSORS_CODES = {name: code for code, name in DTYPES.items()}
TORCH_ENDINGS = (".pth", ".pt", ".bin")


class TensorFiles:
    """Tensors by name, from one or several files: shapes and dtypes are known, values are read on demand."""

    def __init__(self, tensors: dict[str, LazyTensor]):
        self.tensors = tensors

    def names(self) -> tuple[str, ...]:
        """Names of all tensors."""
        return tuple(self.tensors)

    def shapes(self) -> dict[str, Shape]:
        """{name: shape} of all tensors."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def shape(self, name: str) -> Shape:
        """Shape of the tensor `name`."""
        return self.tensors[name].shape

    def dtype(self, name: str) -> np.dtype:
        """Dtype of the tensor `name`."""
        return self.tensors[name].dtype

    def read(self, name: str, index: Index = ()) -> np.ndarray:
        """Reads the slice `index` of the tensor (slices of the leading axes; by default the whole tensor).

        Only the rows in `index[0]` are read from the file.

        Raises:
            KeyError: if the name is unknown.
            UserError: if the file has changed.
        """
        return self.tensors[name].read(index)


def open_tensors(paths: str | Path | Sequence[str | Path], key: str | None = None) -> TensorFiles:
    """Opens safetensors files (a file, an index of shards, or a folder with either) or torch pickles.

    `key` is the entry of a torch pickle that contains the tensors ("state_dict", "model"), if they are nested. The headers
    are used to check that the files are complete; values are read later.

    Raises:
        UserError: if shards of an index are missing, incomplete or lack tensors listed for them (the message names all
            such shards), if a file is damaged, would run code or repeats a tensor, or if it is ambiguous which file of a
            folder to read.
    """
    found: dict[str, LazyTensor] = {}
    for path in [paths] if isinstance(paths, str | Path) else paths:
        file = _the_file(Path(path))
        tensors = _open_index(file, key) if file.name.endswith(".index.json") else _open_file(file, key)
        for name in tensors.keys() & found.keys():
            raise UserError(f"{name} is both in {found[name].file} and in {tensors[name].file}: omit one of the files")
        found |= tensors
    return TensorFiles(found)


def _the_file(path: Path) -> Path:
    """`path` itself or, if it is a folder, its only index, else its only .safetensors file, else pytorch_model.bin."""
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_dir():
        return path
    for pattern in ("*.safetensors.index.json", "*.safetensors", "pytorch_model.bin"):
        files = sorted(path.glob(pattern))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise UserError(f"{path} contains several tensor files ({names}): specify the one to read")
        if files:
            return files[0]
    raise UserError(f"{path} contains neither .safetensors files nor an index of them")


def _open_index(index: Path, key: str | None) -> dict[str, LazyTensor]:
    """The tensors of all shards in the index. All shards are checked before an error is raised."""
    try:
        weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
        shards = sorted(set(weight_map.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is not a valid index of shards ({error!r}): download it again") from error
    found: dict[str, LazyTensor] = {}
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    problems = [f"missing: {shard}" for shard in missing]
    for shard in sorted(set(shards) - set(missing)):
        try:
            tensors = _open_file(index.parent / shard, key)
        except UserError as error:
            problems.append(str(error))
            continue
        absent = [name for name, listed in weight_map.items() if listed == shard and name not in tensors]
        if absent:
            problems.append(f"{shard} lacks {len(absent)} tensors that the index lists for it: {_some(absent)}")
        found |= tensors
    if problems:
        details = "\n  ".join(problems)
        raise UserError(f"{index} lists {len(shards)} shards, not all of them usable (download again):\n  {details}")
    return found


def _open_file(path: Path, key: str | None) -> dict[str, LazyTensor]:
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    if path.suffix in TORCH_ENDINGS:
        return _open_torch(path, key)
    raise UserError(f"{path}: the file name must end in .safetensors or one of {', '.join(TORCH_ENDINGS)}")


def _open_safetensors(path: Path) -> dict[str, LazyTensor]:
    """Reads only the header. Raises UserError if the file length does not match the header."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 + length:
                raise UserError(f"{path} is incomplete or not a safetensors file: it has {size} bytes")
            header = json.loads(file.read(length))
        tensors, end = {}, 0
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            shape, dtype = tuple(entry["shape"]), np.dtype(DTYPES[entry["dtype"]])
            start, stop = entry["data_offsets"]
            if stop - start != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} has {stop - start} bytes for {dtype}{list(shape)}")
            read = partial(_read_rows, path, 8 + length + start, shape, dtype)
            tensors[name], end = LazyTensor(shape, dtype, read, path), max(end, stop)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a valid safetensors file: {error!r}") from error
    if size != 8 + length + end:
        raise UserError(f"{path} is incomplete or damaged: {size} bytes instead of {8 + length + end}")
    return tensors


def _read_rows(path: Path, offset: int, shape: Shape, dtype: np.dtype, index: Index) -> np.ndarray:
    """Reads rows of the tensor at `offset` with plain file reads.

    safetensors.safe_open is not used: it maps the file, and every page that was read stays resident until the process
    ends (after reading 16 tensors of 100 MiB in turn, 1.7 GiB are resident with it and 100 MiB without).
    """
    first, stop = _bounds(index[0], shape[0]) if index and shape else (0, shape[0] if shape else 1)
    row = math.prod(shape[1:])
    try:
        values = np.fromfile(path, dtype, (stop - first) * row, offset=offset + first * row * dtype.itemsize)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if values.size != (stop - first) * row:
        raise UserError(f"{path} became shorter while it was being read")
    values = values.reshape((stop - first, *shape[1:]) if shape else ())
    part = values[(slice(None), *index[1:])] if len(index) > 1 else values
    return part if part.size == values.size else part.copy()


def _bounds(rows: slice, length: int) -> tuple[int, int]:
    first, stop, step = rows.indices(length)
    if step != 1:
        raise ValueError(f"rows are read with step 1, not {step}")
    return first, max(first, stop)


def _open_torch(path: Path, key: str | None) -> dict[str, LazyTensor]:
    """The tensors of a torch pickle. Raises UserError if the pickle needs more than tensors or the file is damaged."""
    torch = torch_module()
    try:
        with path.open("rb") as file:
            # Files from before torch 1.6 are not zip archives; they cannot be mapped and are kept in memory completely.
            mapped = file.read(4) == b"PK\x03\x04"
        state = torch.load(path, weights_only=True, mmap=mapped, map_location="cpu")
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():
            reason = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), "other than tensors")
            raise UserError(f"{path} was refused: loading it would run code from the file ({reason[:200]})") from error
        raise UserError(f"{path} is damaged or not a torch file of tensors") from error
    except MemoryError:
        raise
    except Exception as error:  # the loader raises many types of exceptions for damaged files
        raise UserError(f"{path} is damaged, incomplete or not a torch file of tensors: {str(error)[:200]}") from error
    return _state_dict(path, state, key, mapped)


def _state_dict(path: Path, state: Any, key: str | None, mapped: bool) -> dict[str, LazyTensor]:
    torch = torch_module()
    if key is not None:
        if not isinstance(state, dict) or key not in state:
            raise UserError(f"{path} has no entry {key!r}, only {_some(state if isinstance(state, dict) else [])}")
        state = state[key]
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path} contains no named tensors{f' under {key!r}' if key else ''}")
    others = [str(name) for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise UserError(f"{path} does not contain only tensors; they may be nested under one of: {_some(others)}")
    return {
        name: LazyTensor(tuple(tensor.shape), _numpy_dtype(tensor), partial(_read_torch, tensor, mapped), path)
        for name, tensor in state.items()
    }


def _numpy_dtype(tensor: Any) -> np.dtype:
    return np.dtype(str(tensor.dtype).removeprefix("torch."))


def _read_torch(tensor: Any, mapped: bool, index: Index) -> np.ndarray:
    """A copy of a slice of the tensor. If the file is mapped, its pages are released immediately."""
    dtype = _numpy_dtype(tensor)
    part = tensor.detach()[index].contiguous()
    values = np.array(part.view(getattr(torch_module(), f"int{8 * dtype.itemsize}")).numpy()).view(dtype)
    if mapped:
        # Safe only for file-backed pages that were never written: they are read again on the next access.
        storage, page = tensor.untyped_storage(), mmap.PAGESIZE
        start = -(-storage.data_ptr() // page) * page
        length = (storage.data_ptr() + storage.nbytes()) // page * page - start
        if length > 0:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
    return values


def torch_module() -> ModuleType:
    """The module torch, imported only when a torch file is read or written.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise UserError("reading and writing .pth files needs torch: pip install itjax[convert]") from error


def check_names(
    expected: dict[str, Shape],
    found: TensorFiles,
    where: str,
    allowed_extra: Callable[[str], bool] = lambda name: False,
) -> None:
    """Checks that `found` contains the `expected` tensors with their shapes, and no others than `allowed_extra` accepts.

    Raises:
        UserError: if tensors are missing, unexpected or have a wrong shape; the message lists the first ten of each.
    """
    names = set(found.names())
    missing = [f"{name} {list(shape)}" for name, shape in expected.items() if name not in names]
    unexpected = [f"{n} {list(found.shape(n))}" for n in found.names() if n not in expected and not allowed_extra(n)]
    mismatched = [
        f"{name}: expected {list(shape)}, found {list(found.shape(name))}"
        for name, shape in expected.items()
        if name in names and tuple(shape) != found.shape(name)
    ]
    groups = (("missing", missing), ("unexpected", unexpected), ("with a wrong shape", mismatched))
    details = [f"  {len(items)} {title}: {_some(items, '; ')}" for title, items in groups if items]
    if details:
        raise UserError(f"{where} does not contain the expected {len(expected)} tensors:\n" + "\n".join(details))


def _some(items: Iterable[str], separator: str = ", ") -> str:
    items = [str(item) for item in items]
    return separator.join(items[:10]) + (f"{separator}and {len(items) - 10} more" if len(items) > 10 else "")
