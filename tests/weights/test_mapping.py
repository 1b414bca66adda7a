"""Layouts and tables: both directions are each other's inverse, for whole tensors and for slices."""

from types import SimpleNamespace

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from itjax.weights.mapping import CONV1D, CONV2D, CONV3D, LINEAR, SAME, Row, flat_shapes, sources, to_jax, to_torch
from itjax.weights.tables.dit import MODULATION
from itjax.weights.tables.vae import GAMMA2D, GAMMA3D

LAYOUTS = {
    "same": (SAME, (5, 3)),
    "linear": (LINEAR, (6, 4)),
    "conv1d": (CONV1D, (5, 3, 7)),
    "conv2d": (CONV2D, (5, 3, 2, 4)),
    "conv3d": (CONV3D, (5, 3, 2, 4, 6)),
    "modulation": (MODULATION, (1, 6, 5)),
    "gamma3d": (GAMMA3D, (7, 1, 1, 1)),
    "gamma2d": (GAMMA2D, (7, 1, 1)),
}
over_layouts = pytest.mark.parametrize(("layout", "shape"), LAYOUTS.values(), ids=LAYOUTS)


def random_slices(shape, rng) -> tuple[slice, ...]:
    bounds = [sorted(rng.choice(length + 1, 2, replace=False)) for length in shape]
    return tuple(slice(int(start), int(stop)) for start, stop in bounds)


@over_layouts
def test_both_directions(layout, shape):
    tensor = np.random.default_rng(0).standard_normal(shape)
    array = layout.to_jax(tensor)
    assert array.shape == layout.jax_shape(shape)
    assert layout.torch_shape(array.shape) == shape
    np.testing.assert_array_equal(layout.to_torch(array), tensor, strict=True)


@over_layouts
def test_a_slice_of_one_side_is_a_slice_of_the_other(layout, shape):
    rng = np.random.default_rng(1)
    tensor = rng.standard_normal(shape)
    array = layout.to_jax(tensor)
    for _ in range(20):
        index = random_slices(array.shape, rng)
        np.testing.assert_array_equal(layout.to_jax(tensor[layout.torch_index(index)]), array[index], strict=True)
        index = random_slices(tensor.shape, rng)
        np.testing.assert_array_equal(layout.to_torch(array[layout.jax_index(index)]), tensor[index], strict=True)


def test_published_layouts():
    """What torch calls [out, in, ...] is [..., in, out] in Flax."""
    assert LINEAR.jax_shape((6, 4)) == (4, 6)
    assert CONV3D.jax_shape((5, 3, 2, 4, 6)) == (2, 4, 6, 3, 5)
    assert MODULATION.jax_shape((1, 6, 5)) == (6, 5)


TABLE = (
    Row("head.weight", "head/kernel", LINEAR),
    Row("blocks.{i}.q.weight", "blocks/q/kernel", LINEAR),
    Row("blocks.{i}.modulation", "blocks/modulation", MODULATION),
)
SHAPES = {"head/kernel": (4, 6), "blocks/q/kernel": (3, 4, 5), "blocks/modulation": (3, 2, 4)}


def tree_of(shapes: dict) -> dict:
    return unflatten_dict({path: SimpleNamespace(shape=shape) for path, shape in shapes.items()}, sep="/")


def test_table_both_directions():
    rng = np.random.default_rng(2)
    tree = unflatten_dict({path: rng.standard_normal(shape) for path, shape in SHAPES.items()}, sep="/")
    tensors = dict(to_torch(TABLE, tree))
    assert list(tensors) == [
        "head.weight",
        *(f"blocks.{i}.q.weight" for i in range(3)),
        *(f"blocks.{i}.modulation" for i in range(3)),
    ]
    np.testing.assert_array_equal(tensors["blocks.2.q.weight"], tree["blocks"]["q"]["kernel"][2].T, strict=True)
    assert tensors["blocks.0.modulation"].shape == (1, 2, 4)
    back = to_jax(TABLE, tree, tensors)
    assert flat_shapes(back) == SHAPES
    np.testing.assert_array_equal(back["blocks"]["q"]["kernel"], tree["blocks"]["q"]["kernel"], strict=True)
    np.testing.assert_array_equal(back["blocks"]["modulation"], tree["blocks"]["modulation"], strict=True)
    np.testing.assert_array_equal(back["head"]["kernel"], tree["head"]["kernel"], strict=True)


def test_a_table_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"arrays without a row \['head/bias'\]"):
        sources(TABLE, tree_of(SHAPES | {"head/bias": (6,)}))
    with pytest.raises(ValueError, match=r"rows without an array \['head/kernel'\]"):
        sources(TABLE, tree_of({path: shape for path, shape in SHAPES.items() if path != "head/kernel"}))
    with pytest.raises(ValueError, match="does not match"):
        sources((*TABLE, TABLE[0]), tree_of(SHAPES))
