"""Loads files of torch tensors as sharded parameters, and maps parameters back to torch names, by the tables."""

from collections.abc import Set
from functools import partial

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike

from itjax.parallel.placement import onto_shards
from itjax.weights.lazy import BFLOAT16, LazyTensor
from itjax.weights.mapping import Index, Shape, Source, flat_shapes, sources, torch_shapes
from itjax.weights.plausible import check_values
from itjax.weights.specs import NetworkSpec
from itjax.weights.torch_files import TensorFiles, check_names


def leaf(source: Source, files: TensorFiles, dtype: DTypeLike | None = None) -> LazyTensor:
    """One Flax array (possibly a stack of layers), read from torch tensors, in `dtype` or by default in their common one."""
    dtype = np.dtype(_common_dtype({files.dtype(name) for name in source.names}) if dtype is None else dtype)
    return LazyTensor(source.shape, dtype, partial(_read_leaf, source, files, dtype))


def _common_dtype(dtypes: Set[np.dtype]) -> np.dtype:
    """The type of a stack of layers of these types, without loss.

    float8, which numpy does not convert implicitly, fits into each wider type; different ones fit into bfloat16.
    """
    wider = [dtype for dtype in dtypes if dtype.itemsize > 1]
    return next(iter(dtypes)) if len(dtypes) == 1 else np.result_type(*(wider or [BFLOAT16]))


def _read_leaf(source: Source, files: TensorFiles, dtype: np.dtype, index: Index) -> np.ndarray:
    """Reads layer by layer into one buffer, so that no layer is in memory twice."""
    index, layout = full_index(index, source.shape), source.layout
    if not source.stacked:
        part = _read_checked(files, source.names[0], layout.torch_index(index))
        return np.ascontiguousarray(layout.to_jax(part), dtype)
    layers = range(*index[0].indices(source.shape[0]))
    buffer = np.empty([len(range(*part.indices(n))) for part, n in zip(index, source.shape, strict=True)], dtype)
    for i, layer in enumerate(layers):
        buffer[i] = layout.to_jax(_read_checked(files, source.names[layer], layout.torch_index(index[1:])))
    return buffer


def _read_checked(files: TensorFiles, name: str, index: Index) -> np.ndarray:
    values = files.read(name, index)
    check_values(values, name, files.tensors[name].file)
    return values


def full_index(index: Index, shape: Shape) -> Index:
    """Completes `index` to one slice with explicit bounds per axis."""
    padded = (*index, *(slice(None),) * (len(shape) - len(index)))
    return tuple(slice(*part.indices(n)) for part, n in zip(padded, shape, strict=True))


def checked_sources(spec: NetworkSpec, files: TensorFiles, where: str) -> dict[str, Source]:
    """{path: source} of a network, all of whose tensors are in `files`.

    Raises:
        UserError: if tensors are missing, unexpected or have a wrong shape; the message lists them.
    """
    check_names(torch_shapes(spec.table, spec.abstract), files, where, spec.is_unused)
    return {source.path: source for source in sources(spec.table, spec.abstract)}


def leaves(spec: NetworkSpec, files: TensorFiles, where: str) -> dict[str, LazyTensor]:
    """{path: leaf} of a network.

    Raises:
        UserError: as in `checked_sources`.
    """
    return {path: leaf(source, files) for path, source in checked_sources(spec, files, where).items()}


def load(spec: NetworkSpec, files: TensorFiles, shardings: dict, where: str) -> dict:
    """Loads the parameters of a network, each directly onto its shards.

    Args:
        spec: the network.
        files: its tensors by torch name.
        shardings: nested dict of jax.ShapeDtypeStruct with the sharding and dtype of each parameter.
        where: how error messages refer to the files.

    Raises:
        UserError: as in `checked_sources`.
    """
    found = checked_sources(spec, files, where)
    wanted = flatten_dict(shardings, sep="/")
    loaded = {path: onto_shards(struct, leaf(found[path], files, struct.dtype).read) for path, struct in wanted.items()}
    return unflatten_dict(loaded, sep="/")


def torch_view(spec: NetworkSpec, checkpoint: TensorFiles, prefix: str) -> TensorFiles:
    """Presents a network of our checkpoint under its torch names (`prefix`: the network's name in the checkpoint).

    A converted checkpoint can thus be exported, and LoRA can be applied to it, like a set of official files.

    Raises:
        UserError: if arrays are missing, unexpected or have a wrong shape; the message lists them.
    """
    expected = {f"{prefix}/{path}": shape for path, shape in flat_shapes(spec.abstract).items()}
    check_names(expected, checkpoint, f"the checkpoint's {prefix}", lambda path: not path.startswith(f"{prefix}/"))
    tensors: dict[str, LazyTensor] = {}
    for source in sources(spec.table, spec.abstract):
        tensors |= split_into_torch(source, checkpoint.tensors[f"{prefix}/{source.path}"])
    unused = f"unused/{prefix}/"
    for path in checkpoint.names():
        if path.startswith(unused):
            tensors[path.removeprefix(unused)] = checkpoint.tensors[path]
    return TensorFiles(tensors)


def split_into_torch(source: Source, stored: LazyTensor) -> dict[str, LazyTensor]:
    """Splits one of our arrays into its tensors by torch name: one per layer if it is stacked."""
    read = lambda layer: partial(_read_torch, source, stored, layer)
    tensor = lambda layer: LazyTensor(source.torch_shape, stored.dtype, read(layer), stored.file)
    return {name: tensor(layer) for layer, name in enumerate(source.names)}


def _read_torch(source: Source, stored: LazyTensor, layer: int, index: Index) -> np.ndarray:
    inner = source.layout.jax_index(full_index(index, source.torch_shape))
    value = stored.read((slice(layer, layer + 1), *inner) if source.stacked else inner)
    return source.layout.to_torch(value[0] if source.stacked else value)
