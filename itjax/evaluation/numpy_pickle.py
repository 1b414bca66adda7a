"""Reads pickles (of protocols 3 and 4) that contain dicts of NumPy arrays and nothing else. No file can run code."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from itjax.errors import UserError
from itjax.input_files import check_file

# what an array is pickled as: the module was renamed in NumPy 2
_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """{"a/b": array} of a pickle of nested dicts.

    Raises:
        UserError: If the file is missing, damaged, would run code, or contains something else.
    """
    check_file(path, "a pickle of NumPy arrays")
    try:
        with path.open("rb") as file:
            content = _Reader(file).load()
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} was refused: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # the reader raises many types of exceptions for damaged files
        raise UserError(f"{path} is damaged or not a pickle of NumPy arrays: {str(error)[:200]}") from error
    return _flat(path, content, "")


class _Reader(pickle.Unpickler):
    """Finds only the three names that an array needs, in a form that can do less."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _ARRAY_MODULES and name == "_reconstruct":
            return lambda *_: np.ndarray((0,), np.int8)  # its shape and values come later, from the file's own bytes
        if module == "numpy" and name == "ndarray":
            return "ndarray"  # only a mark for _reconstruct: the class itself could be asked for any amount of memory
        if module == "numpy" and name == "dtype":
            return _number_type
        raise pickle.UnpicklingError(f"it needs {module}.{name}, but only NumPy arrays are read")


def _number_type(name: str, *_: object) -> np.dtype:
    dtype = np.dtype(name)
    if dtype.kind not in "fiu":
        raise pickle.UnpicklingError(f"it has values of type {dtype}, but only numbers are read")
    return dtype


def _flat(path: Path, content: object, prefix: str) -> dict[str, np.ndarray]:
    if not isinstance(content, dict):
        raise UserError(
            f"{path} should contain dicts of arrays, but {prefix.rstrip('/') or 'it'} is a {type(content).__name__}"
        )
    arrays: dict[str, np.ndarray] = {}
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            arrays[f"{prefix}{key}"] = value
        else:
            arrays |= _flat(path, value, f"{prefix}{key}/")
    return arrays
