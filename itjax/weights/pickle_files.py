"""The named tensors of torch's files (.pth, .pt, .bin), read slice by slice.

Files from before torch 1.6 are not zip archives: torch reads them, whole.
"""

import importlib
import pickle
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from itjax.errors import UserError, first_ten
from itjax.weights.lazy import LazyTensor
from itjax.weights.mapping import Index
from itjax.weights.safetensors_files import SAFETENSORS_CODES
from itjax.weights.torch_archive import ARCHIVE_START, Name, Stored, read_archive

TORCH_ENDINGS = (".pth", ".pt", ".bin")


class Loaded:
    """A tensor that torch has read into memory."""

    def __init__(self, path: Path, tensor: Any):
        self.path, self.tensor = path, tensor

    def lazy(self, _name: str) -> LazyTensor:
        """The tensor, copied slice by slice."""
        return LazyTensor(tuple(self.tensor.shape), _numpy_dtype(self.tensor), partial(_copy, self.tensor), self.path)


def open_pickle(path: Path, key: str | None) -> dict[str, LazyTensor]:
    """The tensors of a torch pickle; `key`: see `open_tensors`.

    Raises:
        UserError: if the pickle needs more than tensors, the file is damaged, or a tensor cannot be used as an array.
    """
    try:
        with path.open("rb") as file:
            is_archive = file.read(4) == ARCHIVE_START
        state = read_archive(path) if is_archive else _read_by_torch(path)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():
            reason = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), "other than tensors")
            raise UserError(f"{path} was refused: loading it would run code from the file ({reason[:200]})") from error
        raise UserError(f"{path} is damaged or not a torch file of tensors") from error
    except MemoryError:
        raise
    except Exception as error:  # the readers raise many types of exceptions for damaged files
        raise UserError(f"{path} is damaged, incomplete or not a torch file of tensors: {str(error)[:200]}") from error
    return {name: tensor.lazy(name) for name, tensor in _named_tensors(path, state, key).items()}


def _named_tensors(path: Path, state: Any, key: str | None) -> dict[str, Stored | Loaded]:
    is_tensor = lambda value: isinstance(value, Stored | Loaded | Name)
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
        if isinstance(tensor, Name):
            raise UserError(f"{path}: {name} ({tensor}) is not a plain tensor of numbers: use a file that is not quantised")
    return state


def _read_by_torch(path: Path) -> Any:
    return _of_torch(path, torch_module().load(path, weights_only=True, map_location="cpu"))


def _of_torch(path: Path, value: Any) -> Any:
    """What torch read, with the types that `read_archive` has for tensors."""
    torch = torch_module()
    if isinstance(value, dict):
        return {name: _of_torch(path, part) for name, part in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    kind, layout = (str(x).removeprefix("torch.") for x in (value.dtype, value.layout))
    is_plain = kind in SAFETENSORS_CODES and value.layout is torch.strided and value.device.type == "cpu"
    return Loaded(path, value) if is_plain else Name(f"{kind}, {layout}, {value.device.type}")


def _numpy_dtype(tensor: Any) -> np.dtype:
    return np.dtype(str(tensor.dtype).removeprefix("torch."))


def _copy(tensor: Any, index: Index) -> np.ndarray:
    """A copy of a slice of a tensor in memory."""
    dtype = _numpy_dtype(tensor)
    part = tensor.detach()[index].contiguous()
    return np.array(part.view(getattr(torch_module(), f"int{8 * dtype.itemsize}")).numpy()).view(dtype)


def torch_module() -> ModuleType:
    """The module torch, imported only where its files are written, or one from before torch 1.6 is read.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        what = "writing .pth files, and reading those from before torch 1.6, needs torch"
        raise UserError(f"{what}: pip install itjax[convert]") from error
