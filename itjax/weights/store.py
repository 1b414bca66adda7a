"""One Orbax checkpoint folder for all networks: saved leaf by leaf, restored shard by shard, read slice by slice.

Any program can restore the folder with plain Orbax. In addition to Orbax's files, it contains `sizes.json`, which describes
the networks. Independent of any network: a tree is a nested dict, a leaf is named by its path, 'dit/blocks/mlp/up/kernel'.
"""

import contextlib
import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from flax.traverse_util import flatten_dict, unflatten_dict

from itjax.disk import atomic_path, check_absent, check_output, output_errors
from itjax.errors import OutputError, UserError, first_ten
from itjax.orbax_reports import silenced
from itjax.parallel.placement import onto_shards
from itjax.weights import checksums
from itjax.weights.lazy import LazyTensor
from itjax.weights.mapping import Index, Shape
from itjax.weights.orbax_arrays import RECOVERY_HINT, damaged, open_arrays, read_checkpoint_json
from itjax.weights.plausible import check_values
from itjax.weights.torch_files import TensorFiles

SIZES_FILE = "sizes.json"
COMPANIONS_FOLDER = "files"
VERSION = 1  # format of sizes.json; other versions are rejected
MAX_CHUNK_BYTES = 2**24  # a chunk is the unit of reading: small, so that a shard reads little more than it needs
WRITE_BYTES = 2**25  # bytes of a leaf written at a time
READ_BYTES = 2**27  # bytes of a leaf read at a time


def save(
    directory: str | Path,
    tree: dict,
    metadata: dict,
    companions: Mapping[str, Path] | None = None,
    saved: Callable[[str], None] = lambda path: None,
) -> None:
    """Writes a checkpoint with one leaf in memory at a time.

    The folder appears under its name only when it is complete; leftovers of killed runs are removed first.

    Args:
        directory: the checkpoint's folder; it must not exist, but its parent must.
        tree: nested dict of LazyTensor.
        metadata: JSON that describes the networks; `read_metadata` returns it.
        companions: {name: file} of additional files to copy to the folder `companion_files`.
        saved: called with the path of each leaf after it is written.

    Raises:
        UserError: if `directory` exists, its parent does not exist, or a leaf cannot be read.
        OutputError: if the disk is full (leaves nothing behind).
        ValueError: if a leaf does not match its declared shape or dtype, or its path is not a valid name.
    """
    target, leaves = Path(directory).absolute(), _flat(tree)
    if len({_name(path) for path in leaves}) < len(leaves):
        raise ValueError("two leaves would have the same name, since Orbax joins keys with dots")
    check_absent(target)
    check_output(target, sum(leaf.nbytes for leaf in leaves.values()))
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    with atomic_path(target) as folder:
        _save_skeleton(folder, target, tree)
        for path, leaf in leaves.items():
            _save_leaf(folder, target, path, leaf, digest)
            saved(path)
        with output_errors(target):
            for name, file in sorted((companions or {}).items()):
                copy = companion_files(folder) / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
                digest.update(name.encode() + copy.read_bytes())
            write_sizes(folder, metadata, digest.hexdigest())
            checksums.write(folder, {_name(path) for path in leaves})


def write_sizes(folder: Path, metadata: dict, digest: str) -> None:
    """Writes the file that `read_metadata` and `stored_digest` read.

    Raises:
        OSError: if it cannot be written.
    """
    sizes = {"version": VERSION, "digest": digest, "sizes": metadata}
    (folder / SIZES_FILE).write_text(json.dumps(sizes, indent=2) + "\n")


def companion_files(directory: str | Path) -> Path:
    """The folder with the additional files that `save` copied."""
    return Path(directory) / COMPANIONS_FOLDER


def _save_skeleton(folder: Path, target: Path, tree: dict) -> None:
    """Saves a checkpoint with a scalar zero in place of each leaf; `_save_leaf` then writes the arrays.

    No API to save leaf by leaf exists in all versions of Orbax. This way, Orbax still determines which files make up a
    checkpoint; the only assumption is that, without OCDBT, a leaf is a zarr array in a folder 'a.b.c'.
    """
    zeros = jax.tree.map(lambda leaf: np.zeros((), leaf.dtype), tree, is_leaf=lambda node: isinstance(node, LazyTensor))
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=True)
    with write_errors(target), ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(folder, zeros)


def _save_leaf(folder: Path, target: Path, path: str, leaf: LazyTensor, digest: Any) -> None:
    """Writes a leaf and adds it to the `digest` (a hashlib object) of the checkpoint."""
    try:
        values = leaf.read(())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if values.shape != tuple(leaf.shape) or values.dtype != leaf.dtype:
        declared = f"{leaf.dtype}{list(leaf.shape)}"
        raise ValueError(f"{path} was declared as {declared} but is {values.dtype}{list(values.shape)}")
    digest.update(f"{path} {np.dtype(leaf.dtype).name} {list(leaf.shape)} ".encode())
    chunk = _chunk(leaf.shape, np.dtype(leaf.dtype).itemsize)
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder / _name(path)}/"},
        "store_data_equal_to_fill_value": True,  # so that a missing chunk means lost data, not zeros
        "metadata": {
            "shape": list(leaf.shape),
            "data_type": np.dtype(leaf.dtype).name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        },
    }
    with write_errors(target):
        store = ts.open(spec, create=True, delete_existing=True).result()
        for rows in _blocks(leaf, chunk):
            written = store[rows].write(values[rows], can_reference_source_data_indefinitely=True)  # avoids a copy
            digest.update(np.ascontiguousarray(values[rows]).reshape(-1).view(np.uint8))
            written.result()


def _chunk(shape: Shape, itemsize: int) -> list[int]:
    """Shape of a chunk: the leaf's, halved along a leading axis of layers down to one, then along the longest axis."""
    chunk = [max(1, length) for length in shape]
    while math.prod(chunk) * itemsize > MAX_CHUNK_BYTES:
        axis = 0 if len(chunk) > 2 and chunk[0] > 1 else int(np.argmax(chunk))
        chunk[axis] = -(-chunk[axis] // 2)
    return chunk


def _blocks(leaf: LazyTensor, chunk: list[int]) -> Iterator[tuple[slice, ...]]:
    """Slices of the first axis made of whole chunks, about `WRITE_BYTES` each, because tensorstore buffers its input."""
    if not leaf.shape:
        yield ()
        return
    row_bytes = max(1, leaf.nbytes // max(1, leaf.shape[0]))
    rows = max(1, WRITE_BYTES // row_bytes // chunk[0]) * chunk[0]
    for start in range(0, leaf.shape[0], rows):
        yield (slice(start, min(start + rows, leaf.shape[0])),)


def read_metadata(directory: str | Path) -> dict:
    """The `metadata` passed to `save`.

    Raises:
        UserError: if the folder is not a checkpoint made by `save`, or is damaged.
    """
    file = Path(directory) / SIZES_FILE
    if not file.is_file():
        state = "has no " + SIZES_FILE if Path(directory).is_dir() else "is not a folder"
        raise UserError(f"{directory} is not a checkpoint made by convert_weights.py: it {state}")
    content = _read_sizes(file)
    if content["version"] != VERSION or not isinstance(content["sizes"], dict):
        raise UserError(f"{file} has version {content['version']}, but this program reads version {VERSION}")
    return content["sizes"]


def _read_sizes(file: Path) -> dict:
    content = read_checkpoint_json(file)
    if not isinstance(content, dict) or not {"version", "sizes"} <= content.keys():
        raise UserError(f"{file} is damaged, it lacks the version or sizes: {RECOVERY_HINT}")
    return content


def stored_digest(directory: str | Path) -> str | None:
    """SHA-256 of the arrays, metadata and companions, stored by `save`. None in older checkpoints and those of training.

    Raises:
        UserError: if `sizes.json` is damaged.
    """
    file = Path(directory) / SIZES_FILE
    digest = _read_sizes(file).get("digest") if file.is_file() else None
    return str(digest) if digest else None


def restore(directory: str | Path, abstract_tree: dict) -> dict:
    """Restores the arrays of `abstract_tree` (nested dict of jax.ShapeDtypeStruct), each directly onto its shards.

    Arrays are cast to the requested dtypes. A leaf without a sharding goes to the first local device. Only the leaves in
    the tree are read, one shard in host memory at a time.

    Raises:
        UserError: if leaves are missing or have another shape or values that are not plausible, or files are lost or
            damaged; the message names them.
    """
    wanted = _flat(abstract_tree)
    stores = open_arrays(Path(directory), tuple(wanted))
    mismatched = [
        f"{path}: expected {list(leaf.shape)}, found {list(stores[path].shape)}"
        for path, leaf in wanted.items()
        if tuple(leaf.shape) != tuple(stores[path].shape)
    ]
    if mismatched:
        raise UserError(f"{directory} contains networks of other sizes:\n  " + first_ten(mismatched, "\n  "))

    def read(path: str, dtype: Any, index: Index) -> np.ndarray:
        values = _read_store(Path(directory), path, stores[path], dtype, index)
        check_values(values, path, Path(directory))
        return values

    return unflatten_dict(
        {path: onto_shards(leaf, partial(read, path, leaf.dtype)) for path, leaf in wanted.items()}, sep="/"
    )


def open_checkpoint(directory: str | Path) -> TensorFiles:
    """Opens the leaves by path, to be read as numpy arrays.

    Works with any Orbax checkpoint of a tree of arrays.

    Raises:
        UserError: if the folder is not a checkpoint, or is damaged.
    """
    folder = Path(directory)
    stores = open_arrays(folder, None)
    return TensorFiles(
        {
            path: LazyTensor(tuple(store.shape), store.dtype.numpy_dtype, partial(_read_whole, folder, path, store), folder)
            for path, store in stores.items()
        }
    )


def _read_whole(directory: Path, path: str, store: ts.TensorStore, index: Index) -> np.ndarray:
    return _read_store(directory, path, store, store.dtype.numpy_dtype, index)


def _read_store(directory: Path, path: str, store: ts.TensorStore, dtype: Any, index: Index) -> np.ndarray:
    """Reads the slice `index` block by block: tensorstore would fetch all its chunks at once and hold it twice."""
    row_bytes = max(1, math.prod(store.shape[1:]) * store.dtype.numpy_dtype.itemsize)
    rows = READ_BYTES // row_bytes
    if store.ndim:  # whole chunks, so that no chunk is read twice
        chunk_rows = (store.chunk_layout.read_chunk.shape or (1,))[0] or 1
        rows = max(1, rows // chunk_rows) * chunk_rows
    store = store if store.dtype.numpy_dtype == dtype else ts.cast(store, ts.dtype(np.dtype(dtype)))
    starts = tuple(slice(*part.indices(n)[:2]) for part, n in zip(index, store.shape, strict=False))
    try:
        part = store[starts][ts.d[:].translate_to[0]]
        if not store.ndim or part.shape[0] <= rows:
            return part.read().result()
        values = np.empty(part.shape, dtype)
        for start in range(0, part.shape[0], rows):
            values[start : start + rows] = part[start : min(start + rows, part.shape[0])].read().result()
        return values
    except ValueError as error:  # tensorstore raises ValueError for any problem with its files
        raise damaged(directory, path, error) from error


@contextlib.contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Raises OutputError for a full disk, for which Orbax raises OSError and tensorstore ValueError.

    Nothing else is said of it. Orbax's warning that a checkpoint without OCDBT has no OCDBT to merge is silenced, too.
    """
    try:
        with output_errors(target), silenced():
            yield
    except ValueError as error:
        raise OutputError(f"cannot write {target}: {str(error).split(' [')[0]}") from error


def _name(path: str) -> str:
    """Orbax's name of the leaf."""
    return path.replace("/", ".")


def _flat(tree: dict) -> dict[str, Any]:
    """{'a/b': leaf} of a tree. Raises ValueError for a key that is not valid in paths and file names."""
    leaves = flatten_dict(tree)
    for key in {key for path in leaves for key in path}:
        if not isinstance(key, str) or not re.fullmatch(r"[\w.-]+", key):
            raise ValueError(f"{key!r} cannot be part of a path")
    return {"/".join(path): leaf for path, leaf in leaves.items()}
