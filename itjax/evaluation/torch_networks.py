"""Published convolutional networks from torch files, written as functions of a `unit`: a convolution and its batch norm.

The same function is run twice: with a unit that only records names and shapes, which the file is checked against, and with
one that computes. The batch norm is folded into the convolution as the file is read.
"""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from itjax.errors import UserError
from itjax.input_files import check_file
from itjax.weights.mapping import Shape
from itjax.weights.pickle_files import open_pickle
from itjax.weights.torch_files import TensorFiles, check_names, open_tensors

# N batch · C channels, last (NHWC or NTHWC; for a linear layer NC)

NOT_NEEDED = "*.num_batches_tracked"  # a counter of training steps, in files from torch 0.4.1 on


@runtime_checkable
class Unit(Protocol):
    """A convolution with its batch norm, or a linear layer (`kernel` and `padding` empty); no activation."""

    def __call__(
        self,
        x: Float[Array, "N ..."],
        names: "Names",
        width: int,
        kernel: Shape = (),
        stride: Shape = (),
        padding: Shape = (),
    ) -> Float[Array, "N ..."]:
        """`names`: of its layers in the file; `width`: output channels; `stride`: 1 if empty; `padding`: zeros per side."""


class Names(NamedTuple):
    """Names of a unit's layers in the torch file; `norm` is None if there is no batch norm, `biased`: of the convolution."""

    layer: str
    norm: str | None
    biased: bool = True


class Weights(NamedTuple):
    """A unit's kernel [..., in, out] and bias, with the batch norm folded in."""

    kernel: Float[Array, "*kernel in out"]
    bias: Float[Array, " out"]


Network = Callable[..., Array]  # network(unit, *inputs)


def apply(network: Network, weights: dict[str, Weights], *inputs: Float[Array, "..."]) -> Array:
    """The network's output in float32 (accelerators would round products to bfloat16)."""

    def unit(x, names, width, kernel=(), stride=(), padding=()):
        return _convolve(x, weights[names.layer], stride, padding)

    with jax.default_matmul_precision("highest"):
        return network(unit, *inputs)


def _convolve(x: Array, weights: Weights, stride: Sequence[int], padding: Sequence[int]) -> Array:
    spatial = x.ndim - 2
    if not spatial:
        return x @ weights.kernel + weights.bias
    letters = "THW"[-spatial:]
    layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    pads = [(n, n) for n in padding or (0,) * spatial]
    strides = tuple(stride) or (1,) * spatial
    return jax.lax.conv_general_dilated(x, weights.kernel, strides, pads, dimension_numbers=layout) + weights.bias


def max_pool(x: Array, window: Shape, stride: Shape, padding: Shape = ()) -> Array:
    """Maximum over windows, as torch's: an incomplete last window is dropped."""
    pads = ((0, 0), *((n, n) for n in padding or (0,) * len(window)), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, *window, 1), (1, *stride, 1), pads)


def units(network: Network, *inputs: jax.ShapeDtypeStruct) -> dict[Names, Shape]:
    """{names: shape of the kernel in the torch file} of every unit of the network."""
    found: dict[Names, Shape] = {}

    def record(x, names, width, kernel=(), stride=(), padding=()):
        found[names] = (width, x.shape[-1], *kernel)
        return _convolve(x, Weights(jnp.zeros((*kernel, x.shape[-1], width)), jnp.zeros(width)), stride, padding)

    jax.eval_shape(lambda *arrays: network(record, *arrays), *inputs)
    return found


def torch_shapes(shapes: dict[Names, Shape]) -> dict[str, Shape]:
    """{name: shape} of all tensors of the units in the torch file."""
    tensors: dict[str, Shape] = {}
    for names, shape in shapes.items():
        tensors[f"{names.layer}.weight"] = shape
        vectors = [f"{names.layer}.bias"] if names.biased else []
        if names.norm:
            vectors += [f"{names.norm}.{kind}" for kind in ("weight", "bias", "running_mean", "running_var")]
        tensors |= dict.fromkeys(vectors, shape[:1])
    return tensors


def read_weights(
    path: Path, what: str, shapes: dict[Names, Shape], epsilon: float, unused: Iterable[str] = ()
) -> dict[str, Weights]:  # fmt: skip
    """The weights of a network from a torch pickle or safetensors file, by the names of the units' layers.

    `what` names the network in messages; `epsilon` is that of its batch norm; `unused`: patterns of names that are not read.

    Raises:
        UserError: If the file cannot be read, would run code, or holds another network.
    """
    check_file(path, f"the weights of {what}")
    safetensors = path.suffix == ".safetensors"
    tensors = open_tensors(path) if safetensors else TensorFiles(open_pickle(path, None))
    skip = lambda name: any(fnmatch(name, pattern) for pattern in (NOT_NEEDED, *unused))
    check_names(torch_shapes(shapes), tensors, f"{path} is not {what}: it", skip)
    return {names.layer: _folded(tensors, names, epsilon) for names in shapes}


def _folded(tensors: TensorFiles, names: Names, epsilon: float) -> Weights:
    """In float64, as the variances are small: rounding would be larger than that of the network itself."""
    kernel = tensors.read(f"{names.layer}.weight").astype(np.float64)
    bias = tensors.read(f"{names.layer}.bias").astype(np.float64) if names.biased else np.zeros(len(kernel))
    if names.norm:
        scale, shift, mean, var = (
            tensors.read(f"{names.norm}.{kind}").astype(np.float64)
            for kind in ("weight", "bias", "running_mean", "running_var")
        )
        factor = scale / np.sqrt(var + epsilon)
        kernel, bias = (kernel.T * factor).T, (bias - mean) * factor + shift
    order = (*range(2, kernel.ndim), 1, 0)
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise UserError(f"{tensors.tensors[f'{names.layer}.weight'].file}: {names.layer} has values that are not finite")
    return Weights(jnp.asarray(kernel.transpose(order), jnp.float32), jnp.asarray(bias, jnp.float32))
