"""Loads files of torch tensors as sharded parameters, and maps parameters back to torch names, by the tables."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import DTypeLike

from itjax.parallel.placement import onto_shards
from itjax.weights.mapping import Index, Shape, Source, flat_shapes, sources, torch_shapes
from itjax.weights.specs import NetworkSpec
from itjax.weights.torch_files import Stored, TensorFiles, check_names


class Leaf(NamedTuple):
    """One Flax array (possibly a stack of layers), read lazily from torch tensors."""

    source: Source
    files: TensorFiles

    @property
    def shape(self) -> Shape:
        """Shape of the Flax array."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype:
        """The common dtype of all its tensors."""
        return np.result_type(*(self.files.dtype(name) for name in self.source.names))

    def read(self, index: Index = (), dtype: DTypeLike | None = None) -> np.ndarray:
        """Reads the slice `index` of the array, layer by layer into one buffer."""
        index = full_index(index, self.shape)
        dtype = self.dtype if dtype is None else dtype
        layout = self.source.layout
        if not self.source.stacked:
            part = self.files.read(self.source.names[0], layout.torch_index(index))
            return np.ascontiguousarray(layout.to_jax(part), dtype)
        layers = range(*index[0].indices(self.shape[0]))
        buffer = np.empty([len(range(*part.indices(n))) for part, n in zip(index, self.shape, strict=True)], dtype)
        for i, layer in enumerate(layers):
            buffer[i] = layout.to_jax(self.files.read(self.source.names[layer], layout.torch_index(index[1:])))
        return buffer


def full_index(index: Index, shape: Shape) -> Index:
    """Completes `index` to one slice with explicit bounds per axis."""
    padded = (*index, *(slice(None),) * (len(shape) - len(index)))
    return tuple(slice(*part.indices(n)) for part, n in zip(padded, shape, strict=True))


def leaves(spec: NetworkSpec, files: TensorFiles, where: str) -> dict[str, Leaf]:
    """{path: leaf} of a network.

    Raises:
        UserError: if tensors are missing, unexpected or have a wrong shape; the message lists them.
    """
    check_names(torch_shapes(spec.table, spec.abstract), files, where, spec.is_unused)
    return {source.path: Leaf(source, files) for source in sources(spec.table, spec.abstract)}


def nested(flat: dict) -> dict:
    """Builds a tree from paths: {"a/b": x} -> {"a": {"b": x}}."""
    tree: dict = {}
    for path, value in flat.items():
        *parents, leaf = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[leaf] = value
    return tree


def load(spec: NetworkSpec, files: TensorFiles, shardings: dict, where: str) -> dict:
    """Loads the parameters of a network, each directly onto its shards.

    Args:
        spec: the network.
        files: its tensors by torch name.
        shardings: nested dict of jax.ShapeDtypeStruct with the sharding and dtype of each parameter.
        where: how error messages refer to the files.

    Raises:
        UserError: as in `leaves`.
    """
    wanted = {"/".join(str(k.key) for k in path): leaf for path, leaf in jax.tree.leaves_with_path(shardings)}
    found = leaves(spec, files, where)
    read = lambda path, dtype: partial(found[path].read, dtype=dtype)
    return nested({path: onto_shards(struct, read(path, struct.dtype)) for path, struct in wanted.items()})


def torch_view(spec: NetworkSpec, checkpoint: TensorFiles, prefix: str) -> TensorFiles:
    """Presents a network of our checkpoint under its torch names (`prefix`: the network's name in the checkpoint).

    A converted checkpoint can thus be exported, and LoRA can be applied to it, like a set of official files.

    Raises:
        UserError: if arrays are missing, unexpected or have a wrong shape; the message lists them.
    """
    expected = {f"{prefix}/{path}": shape for path, shape in flat_shapes(spec.abstract).items()}
    check_names(expected, checkpoint, f"the checkpoint's {prefix}", lambda path: not path.startswith(f"{prefix}/"))
    tensors: dict[str, Stored] = {}
    for source in sources(spec.table, spec.abstract):
        tensors |= as_torch(source, checkpoint.tensors[f"{prefix}/{source.path}"])
    unused = f"unused/{prefix}/"
    for path in checkpoint.names():
        if path.startswith(unused):
            tensors[path.removeprefix(unused)] = checkpoint.tensors[path]
    return TensorFiles(tensors)


def as_torch(source: Source, stored: Stored) -> dict[str, Stored]:
    """Splits one of our arrays into its tensors by torch name: one per layer if it is stacked."""
    read = lambda layer: partial(_read_torch, source, stored, layer)
    tensor = lambda layer: Stored(source.torch_shape, stored.dtype, stored.file, read(layer))
    return {name: tensor(layer) for layer, name in enumerate(source.names)}


def _read_torch(source: Source, stored: Stored, layer: int, index: Index) -> np.ndarray:
    inner = source.layout.jax_index(full_index(index, source.torch_shape))
    value = stored.read((slice(layer, layer + 1), *inner) if source.stacked else inner)
    return source.layout.to_torch(value[0] if source.stacked else value)
