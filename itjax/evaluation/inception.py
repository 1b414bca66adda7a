"""The features of FID: Inception v3 of 5 December 2015 as ported from TensorFlow, 2048 values after the last pooling.

The file is `pt_inception-2015-12-05-6726825d.pth`, which pytorch-fid and torch-fidelity use; it is not shipped here. Both
packages need torchvision and load the file in a way that may run code, so the network is written out. It differs from
torchvision's Inception v3 in its average pooling (without the zeros at the border) and in the last block (maximum pooling).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from itjax.evaluation.batches import in_batches
from itjax.evaluation.tensorflow_resize import resize_bilinear
from itjax.evaluation.torch_networks import Names, Unit, apply, max_pool, read_weights, units
from itjax.weights.mapping import Shape

# N pictures · H W given pixels

WHAT = "Inception v3 for FID (pt_inception-2015-12-05-6726825d.pth)"
SIDE, WIDTH = 299, 2048
BATCH = 8  # pictures at a time
EPSILON = 1e-3  # of the batch norm
UNUSED = ("fc.*",)  # the classifier


def features(unit: Unit, pictures: Float[Array, "N side side 3"]) -> Float[Array, "N 2048"]:
    """The mean over the picture of the last block's output. `pictures`: of 299 pixels, -1..1 as (pixel - 128) / 128."""
    conv = partial(_conv, unit, "")
    x = conv("Conv2d_1a_3x3", pictures, 32, (3, 3), (2, 2))
    x = conv("Conv2d_2b_3x3", conv("Conv2d_2a_3x3", x, 32, (3, 3)), 64, (3, 3), pad=(1, 1))
    x = conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", _halved(x), 80), 192, (3, 3))
    x = _halved(x)
    block = lambda name: partial(_conv, unit, f"Mixed_{name}.")
    for name, pooled in (("5b", 32), ("5c", 64), ("5d", 64)):
        x = _block_a(block(name), x, pooled)
    x = _block_b(block("6a"), x)
    for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        x = _block_c(block(name), x, inner)
    x = _block_d(block("7a"), x)
    x = _block_e(block("7b"), x, _averaged(x))
    x = _block_e(block("7c"), x, max_pool(x, (3, 3), (1, 1), (1, 1)))
    return x.mean((1, 2))


def _conv(
    unit: Unit, prefix: str, name: str, x: Array, width: int, kernel: Shape = (1, 1), stride: Shape = (), pad: Shape = ()
) -> Array:  # fmt: skip
    names = Names(f"{prefix}{name}.conv", f"{prefix}{name}.bn", biased=False)
    return jax.nn.relu(unit(x, names, width, kernel, stride, pad))


def _joined(*branches: Array) -> Array:
    return jnp.concatenate(branches, -1)


def _halved(x: Array) -> Array:
    return max_pool(x, (3, 3), (2, 2))


def _averaged(x: Array) -> Array:
    """Mean of 3x3 pixels; at the border of those that exist."""
    total = lambda y: jax.lax.reduce_window(y, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    return total(x) / total(jnp.ones_like(x[:1, :, :, :1]))


def _block_a(conv: Callable[..., Array], x: Array, pooled: int) -> Array:
    five = conv("branch5x5_2", conv("branch5x5_1", x, 48), 64, (5, 5), pad=(2, 2))
    three = conv("branch3x3dbl_2", conv("branch3x3dbl_1", x, 64), 96, (3, 3), pad=(1, 1))
    three = conv("branch3x3dbl_3", three, 96, (3, 3), pad=(1, 1))
    return _joined(conv("branch1x1", x, 64), five, three, conv("branch_pool", _averaged(x), pooled))


def _block_b(conv: Callable[..., Array], x: Array) -> Array:
    three = conv("branch3x3dbl_2", conv("branch3x3dbl_1", x, 64), 96, (3, 3), pad=(1, 1))
    three = conv("branch3x3dbl_3", three, 96, (3, 3), (2, 2))
    return _joined(conv("branch3x3", x, 384, (3, 3), (2, 2)), three, _halved(x))


def _block_c(conv: Callable[..., Array], x: Array, inner: int) -> Array:
    row, column = ((1, 7), (), (0, 3)), ((7, 1), (), (3, 0))  # kernel, stride, pad
    once = conv("branch7x7_2", conv("branch7x7_1", x, inner), inner, *row)
    once = conv("branch7x7_3", once, 192, *column)
    twice = conv("branch7x7dbl_2", conv("branch7x7dbl_1", x, inner), inner, *column)
    twice = conv("branch7x7dbl_4", conv("branch7x7dbl_3", twice, inner, *row), inner, *column)
    twice = conv("branch7x7dbl_5", twice, 192, *row)
    return _joined(conv("branch1x1", x, 192), once, twice, conv("branch_pool", _averaged(x), 192))


def _block_d(conv: Callable[..., Array], x: Array) -> Array:
    three = conv("branch3x3_2", conv("branch3x3_1", x, 192), 320, (3, 3), (2, 2))
    seven = conv("branch7x7x3_2", conv("branch7x7x3_1", x, 192), 192, (1, 7), pad=(0, 3))
    seven = conv("branch7x7x3_3", seven, 192, (7, 1), pad=(3, 0))
    return _joined(three, conv("branch7x7x3_4", seven, 192, (3, 3), (2, 2)), _halved(x))


def _block_e(conv: Callable[..., Array], x: Array, pooled: Array) -> Array:
    def fork(name: str, y: Array) -> Array:
        return _joined(conv(f"{name}a", y, 384, (1, 3), pad=(0, 1)), conv(f"{name}b", y, 384, (3, 1), pad=(1, 0)))

    three = fork("branch3x3_2", conv("branch3x3_1", x, 384))
    double = conv("branch3x3dbl_2", conv("branch3x3dbl_1", x, 448), 384, (3, 3), pad=(1, 1))
    return _joined(conv("branch1x1", x, 320), three, fork("branch3x3dbl_3", double), conv("branch_pool", pooled, 192))


class Inception:
    """The network with the weights in the file `path`.

    Raises:
        UserError: If the file is missing, would run code, or holds another network.
    """

    def __init__(self, path: Path):
        shapes = units(features, jax.ShapeDtypeStruct((BATCH, SIDE, SIDE, 3), np.float32))
        self._weights = read_weights(path, WHAT, shapes, EPSILON, UNUSED)
        self._features = jax.jit(partial(apply, features))

    def __call__(self, frames: UInt8[np.ndarray, "N H W 3"]) -> Float32[np.ndarray, "N 2048"]:
        """A vector for each picture."""
        return in_batches(self._batch, frames, BATCH)

    def _batch(self, frames: UInt8[np.ndarray, "N H W 3"]) -> Array:
        return self._features(self._weights, (resize_bilinear(frames, SIDE, SIDE) - 128) / 128)
