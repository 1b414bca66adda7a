"""Reads safetensors files slice by slice. The header is checked by the library safetensors, the values are read here."""

import math
from functools import partial
from pathlib import Path

import ml_dtypes  # noqa: F401  (makes "bfloat16" and "float8_e4m3fn" names that numpy knows)
import numpy as np
from safetensors import SafetensorError, safe_open

from itjax.errors import UserError
from itjax.input_files import parse_json
from itjax.weights.lazy import LazyTensor
from itjax.weights.mapping import Index, Shape

DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
    **{"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"},
    **{"U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64"},
}
SAFETENSORS_CODES = {name: code for code, name in DTYPES.items()}


def open_safetensors(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a file. Only the header is read.

    The library requires that the tensors fill the file in their order, without gaps or overlaps, so the position of each
    follows from the sizes of those before it.

    Raises:
        UserError: if the header is not valid, names a tensor twice or does not match the length of the file.
    """
    try:
        tensors = {}
        with safe_open(path, framework="numpy") as header:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                parse_json(file.read(length), path)  # the library takes the last of tensors with the same name
            start = 8 + length
            for name in header.offset_keys():
                entry = header.get_slice(name)
                code, shape = entry.get_dtype(), tuple(entry.get_shape())
                if code not in DTYPES:
                    raise UserError(f"{path}: {name} is of type {code}, which is not supported: use a file in BF16 or F32")
                dtype = np.dtype(DTYPES[code])
                tensors[name] = LazyTensor(shape, dtype, partial(read_rows, path, start, shape, dtype), path)
                start += tensors[name].nbytes
    except SafetensorError as error:
        raise UserError(f"{path} is incomplete, damaged or not a safetensors file (download it again): {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return tensors


def read_rows(path: Path, offset: int, shape: Shape, dtype: np.dtype, index: Index) -> np.ndarray:
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
