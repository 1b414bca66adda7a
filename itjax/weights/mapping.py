"""What a row of a conversion table is, and how torch names, shapes and slices follow from it. Reads no file.

A table has one row for each kind of tensor and serves both directions. `{i}` in the torch name stands for the layers that
Flax keeps stacked on a leading axis (they are applied by `nn.scan`).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]
Index = tuple[slice, ...]


class Layout(NamedTuple):
    """How one tensor lies in torch and in JAX: drop torch's axes of length 1 named in `squeeze`, then permute the rest.

    `permutation` is empty where the order stays. All layouts are views: a slice of one side is a slice of the other.
    """

    permutation: tuple[int, ...] = ()
    squeeze: tuple[int, ...] = ()

    def to_jax(self, tensor: np.ndarray) -> np.ndarray:
        """The torch tensor as it lies in JAX."""
        tensor = np.squeeze(tensor, self.squeeze) if self.squeeze else tensor
        return tensor.transpose(self.permutation) if self.permutation else tensor

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """The JAX array as it lies in torch."""
        array = array.transpose(np.argsort(self.permutation)) if self.permutation else array
        return np.expand_dims(array, self.squeeze) if self.squeeze else array

    def jax_shape(self, shape: Shape) -> Shape:
        """Shape in JAX of a torch tensor of `shape`."""
        kept = tuple(n for axis, n in enumerate(shape) if axis not in self.squeeze)
        return tuple(kept[axis] for axis in self.permutation) if self.permutation else kept

    def torch_shape(self, shape: Shape) -> Shape:
        """Shape in torch of a JAX array of `shape`."""
        order = np.argsort(self.permutation) if self.permutation else range(len(shape))
        kept = [shape[axis] for axis in order]
        for axis in sorted(self.squeeze):
            kept.insert(axis, 1)
        return tuple(kept)

    def torch_index(self, index: Index) -> Index:
        """The part of the torch tensor that holds the part `index` of the JAX array."""
        order = np.argsort(self.permutation) if self.permutation else range(len(index))
        kept = [index[axis] for axis in order]
        for axis in sorted(self.squeeze):
            kept.insert(axis, slice(0, 1))
        return tuple(kept)

    def jax_index(self, index: Index) -> Index:
        """The part of the JAX array that holds the part `index` of the torch tensor."""
        kept = tuple(part for axis, part in enumerate(index) if axis not in self.squeeze)
        return tuple(kept[axis] for axis in self.permutation) if self.permutation else kept


SAME = Layout()
LINEAR = Layout((1, 0))  # [out, in] -> [in, out]
CONV1D = Layout((2, 1, 0))  # [out, in, w] -> [w, in, out]
CONV2D = Layout((2, 3, 1, 0))  # [out, in, h, w] -> [h, w, in, out]
CONV3D = Layout((2, 3, 4, 1, 0))  # [out, in, t, h, w] -> [t, h, w, in, out]


class Row(NamedTuple):
    """One kind of tensor: its torch name (`{i}`: the layer), its path in the Flax parameters, and how it lies in each."""

    torch: str
    path: str
    layout: Layout

    @property
    def stacked(self) -> bool:
        """Whether it is a tensor for each layer, which Flax keeps stacked."""
        return "{i}" in self.torch


Table = tuple[Row, ...]


class Source(NamedTuple):
    """Where the values of one Flax array come from: a torch tensor for each layer, or one tensor where not stacked."""

    path: str
    names: tuple[str, ...]
    layout: Layout
    stacked: bool
    shape: Shape

    @property
    def torch_shape(self) -> Shape:
        """Shape of each of the torch tensors."""
        return self.layout.torch_shape(self.shape[1:] if self.stacked else self.shape)


def flat_shapes(tree: dict, prefix: str = "") -> dict[str, Shape]:
    """{'a/b': shape} of a nested dict whose leaves have a shape."""
    shapes: dict[str, Shape] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        shapes |= flat_shapes(value, path + "/") if isinstance(value, dict) else {path: tuple(value.shape)}
    return shapes


def sources(table: Table, tree: dict) -> tuple[Source, ...]:
    """The sources of every array in `tree` (nested dict with shapes), in the table's order.

    Raises:
        ValueError: where a row names no array of the tree, or the tree has an array without a row: both are named.
    """
    shapes = flat_shapes(tree)
    paths = [row.path for row in table]
    unknown, unnamed = sorted(set(paths) - set(shapes)), sorted(set(shapes) - set(paths))
    if unknown or unnamed or len(set(paths)) != len(paths):
        raise ValueError(f"the table does not fit: rows without an array {unknown}, arrays without a row {unnamed}")
    found = []
    for row in table:
        shape = shapes[row.path]
        names = tuple(row.torch.format(i=i) for i in range(shape[0])) if row.stacked else (row.torch,)
        found.append(Source(row.path, names, row.layout, row.stacked, shape))
    return tuple(found)


def torch_shapes(table: Table, tree: dict) -> dict[str, Shape]:
    """{torch name: shape} of all tensors that the arrays of `tree` become."""
    return {name: source.torch_shape for source in sources(table, tree) for name in source.names}


def to_torch(table: Table, tree: dict) -> Iterator[tuple[str, np.ndarray]]:
    """(torch name, tensor) of every array in `tree`, views where possible, layer by layer."""
    for source in sources(table, tree):
        value = tree
        for key in source.path.split("/"):
            value = value[key]
        layers = value if source.stacked else [value]
        for name, layer in zip(source.names, layers, strict=True):
            yield name, source.layout.to_torch(np.asarray(layer))


def to_jax(table: Table, tree: dict, tensors: dict[str, np.ndarray]) -> dict:
    """The nested dict of arrays with the shapes of `tree`, filled from torch tensors. For small networks and tests.

    Raises:
        KeyError: for a missing tensor; `load.py` checks names and shapes of whole files before anything is read.
    """
    filled: dict = {}
    for source in sources(table, tree):
        layers = [source.layout.to_jax(tensors[name]) for name in source.names]
        *parents, leaf = source.path.split("/")
        here = filled
        for key in parents:
            here = here.setdefault(key, {})
        here[leaf] = np.stack(layers) if source.stacked else np.ascontiguousarray(layers[0])
    return filled
