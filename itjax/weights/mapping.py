"""Rows of a conversion table, and the torch names, shapes and slices that follow from them. Reads no files.

A table has one row per kind of tensor and serves both directions. `{i}` in a torch name is the number of a layer; Flax
stacks these layers on a leading axis (they are applied by `nn.scan`).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]
Index = tuple[slice, ...]


class Layout(NamedTuple):
    """How the axes of a tensor map from torch to JAX: drop the axes of length 1 in `squeeze`, then permute the rest.

    `permutation` is empty if the order does not change. All layouts are views: a slice on one side is a slice on the other.
    """

    permutation: tuple[int, ...] = ()
    squeeze: tuple[int, ...] = ()

    def to_jax(self, tensor: np.ndarray) -> np.ndarray:
        """Converts a torch tensor to the JAX layout."""
        tensor = np.squeeze(tensor, self.squeeze) if self.squeeze else tensor
        return tensor.transpose(self.permutation) if self.permutation else tensor

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """Converts a JAX array to the torch layout."""
        array = array.transpose(np.argsort(self.permutation)) if self.permutation else array
        return np.expand_dims(array, self.squeeze) if self.squeeze else array

    def jax_shape(self, shape: Shape) -> Shape:
        """JAX shape of a torch tensor of `shape`."""
        kept = tuple(n for axis, n in enumerate(shape) if axis not in self.squeeze)
        return tuple(kept[axis] for axis in self.permutation) if self.permutation else kept

    def torch_shape(self, shape: Shape) -> Shape:
        """Torch shape of a JAX array of `shape`."""
        order = np.argsort(self.permutation) if self.permutation else range(len(shape))
        kept = [shape[axis] for axis in order]
        for axis in sorted(self.squeeze):
            kept.insert(axis, 1)
        return tuple(kept)

    def torch_index(self, index: Index) -> Index:
        """The slice of the torch tensor that corresponds to the slice `index` of the JAX array."""
        order = np.argsort(self.permutation) if self.permutation else range(len(index))
        kept = [index[axis] for axis in order]
        for axis in sorted(self.squeeze):
            kept.insert(axis, slice(0, 1))
        return tuple(kept)

    def jax_index(self, index: Index) -> Index:
        """The slice of the JAX array that corresponds to the slice `index` of the torch tensor."""
        kept = tuple(part for axis, part in enumerate(index) if axis not in self.squeeze)
        return tuple(kept[axis] for axis in self.permutation) if self.permutation else kept


SAME = Layout()
LINEAR = Layout((1, 0))  # [out, in] -> [in, out]
CONV1D = Layout((2, 1, 0))  # [out, in, w] -> [w, in, out]
CONV2D = Layout((2, 3, 1, 0))  # [out, in, h, w] -> [h, w, in, out]
CONV3D = Layout((2, 3, 4, 1, 0))  # [out, in, t, h, w] -> [t, h, w, in, out]


class Row(NamedTuple):
    """One kind of tensor: its torch name (`{i}`: the layer), its path in the Flax parameters, and its layout."""

    torch: str
    path: str
    layout: Layout

    @property
    def stacked(self) -> bool:
        """Whether there is one tensor per layer, which Flax stacks."""
        return "{i}" in self.torch


Table = tuple[Row, ...]


class Source(NamedTuple):
    """The torch tensors from which one Flax array is read: one per layer if stacked, else a single one."""

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
    """The source of every array in `tree` (nested dict with shapes), in the table's order.

    Raises:
        ValueError: if a row has no array in the tree, or an array of the tree has no row; the message names them.
    """
    shapes = flat_shapes(tree)
    paths = [row.path for row in table]
    unmatched, missing = sorted(set(paths) - set(shapes)), sorted(set(shapes) - set(paths))
    if unmatched or missing or len(set(paths)) != len(paths):
        raise ValueError(f"the table does not match: rows without an array {unmatched}, arrays without a row {missing}")
    found = []
    for row in table:
        shape = shapes[row.path]
        names = tuple(row.torch.format(i=i) for i in range(shape[0])) if row.stacked else (row.torch,)
        found.append(Source(row.path, names, row.layout, row.stacked, shape))
    return tuple(found)


def torch_shapes(table: Table, tree: dict) -> dict[str, Shape]:
    """{torch name: shape} of all tensors for the arrays of `tree`."""
    return {name: source.torch_shape for source in sources(table, tree) for name in source.names}


def to_torch(table: Table, tree: dict) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (torch name, tensor) for every array in `tree`, layer by layer; views where possible."""
    for source in sources(table, tree):
        value = tree
        for key in source.path.split("/"):
            value = value[key]
        layers = value if source.stacked else [value]
        for name, layer in zip(source.names, layers, strict=True):
            yield name, source.layout.to_torch(np.asarray(layer))


def to_jax(table: Table, tree: dict, tensors: dict[str, np.ndarray]) -> dict:
    """Builds a nested dict of arrays, shaped like `tree`, from torch tensors. For small networks and tests.

    Raises:
        KeyError: if a tensor is missing; `load.py` checks names and shapes of whole files before anything is read.
    """
    filled: dict = {}
    for source in sources(table, tree):
        layers = [source.layout.to_jax(tensors[name]) for name in source.names]
        *parents, leaf = source.path.split("/")
        node = filled
        for key in parents:
            node = node.setdefault(key, {})
        node[leaf] = np.stack(layers) if source.stacked else np.ascontiguousarray(layers[0])
    return filled
