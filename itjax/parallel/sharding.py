"""Sharding: the mesh, how parameters are stored on it, and the constraints on activations.

Mesh axes: `data` splits videos (or training examples), `context` splits tokens and, inside self-attention, the queries;
`ulysses` splits tokens outside and heads inside self-attention (arXiv 2309.14509). Parameters are sharded over all devices
(FSDP), each along one axis (`parameter_spec`); the compiler gathers them layer by layer. The VAE is the exception: with few
parameters and large pictures, it is whole on every device, and the rows of its pictures are split.
"""

import math

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import KeyPath

from itjax.errors import UserError

AXES = ("data", "context", "ulysses")
SEQUENCE = ("context", "ulysses")
WHOLE = ("vae",)  # networks that every device has whole
STACKED = "blocks"  # parameters below this name are those of all layers, along a first axis that is never split
_SMALL = 2**15  # elements of a layer: smaller parameters (biases, norms, modulation) are not worth a gather


def make_mesh(ulysses: int = 0, context: int = 0, *, heads: int, devices: list | None = None) -> Mesh:
    """The mesh of all devices for one video. A size of 0 is automatic: `ulysses` as large as divides the heads comes first.

    Raises:
        UserError: if `ulysses` does not divide the heads, or the sizes do not divide the number of devices.
    """
    count = len(devices or jax.devices())
    if min(ulysses, context) < 0:
        raise UserError(f"--ulysses_size {ulysses}, --ring_size {context}: must be at least 1, or 0 for automatic")
    ulysses = ulysses or math.gcd(heads, max(1, count // (context or 1)))
    if heads % ulysses:
        raise UserError(f"--ulysses_size {ulysses} does not divide the {heads} attention heads")
    context = context or max(1, count // ulysses)
    if count % (ulysses * context):
        raise UserError(f"--ulysses_size {ulysses} times --ring_size {context} does not divide the {count} device(s)")
    shape = (count // (ulysses * context), context, ulysses)
    # Auto axes: under the default (Explicit) every reshape would need its sharding spelled out
    types = (AxisType.Auto,) * len(AXES)
    if devices is None:
        return jax.make_mesh(shape, AXES, axis_types=types)  # neighbours in the mesh are neighbours in the chip's torus
    return Mesh(np.asarray(devices).reshape(shape), AXES, axis_types=types)


def parameter_spec(path: KeyPath, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    """FSDP over the whole mesh: along the last axis if divisible, else the longest divisible axis; replicated if small.

    The last axis is the output features, which are the rows of a torch Linear, so that a shard is one contiguous read.

    Args:
        path: The parameter's keys in its tree, or in one that has its tree as a part (such as an optimizer's state).
        shape: The parameter's shape.
        mesh: The mesh.
    """
    first = int(any(getattr(key, "key", None) == STACKED for key in path))
    axes = [axis for axis in range(first, len(shape)) if shape[axis] % mesh.size == 0]
    if mesh.size == 1 or not axes or math.prod(shape[first:]) < _SMALL:
        return P()
    chosen = axes[-1] if axes[-1] == len(shape) - 1 else max(axes, key=lambda axis: shape[axis])
    return P(*(AXES if axis == chosen else None for axis in range(len(shape))))


def with_shardings(tree, mesh: Mesh, dtype=None):
    """ShapeDtypeStructs of `tree` with the sharding each parameter is stored in, and with `dtype` if given."""

    def struct(path: KeyPath, x) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, parameter_spec(path, x.shape, mesh))
        return jax.ShapeDtypeStruct(x.shape, dtype or x.dtype, sharding=sharding)

    return jax.tree.map_with_path(struct, tree)


def network_shardings(network: str, tree, mesh: Mesh, dtype=None):
    """`with_shardings` for a network ("dit", "vae" ...); those in `WHOLE` are on every device."""
    if network not in WHOLE:
        return with_shardings(tree, mesh, dtype)
    replicated = NamedSharding(mesh, P())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype or x.dtype, sharding=replicated), tree)


def constrain(x: jax.Array, *axes) -> jax.Array:
    """Constrains the dimensions of `x` to the named mesh axes. Returns `x` itself without a mesh (one device, tests)."""
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty or mesh.size == 1 else jax.lax.with_sharding_constraint(x, P(*axes))


def heads_spec(shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    """How keys and values [..., heads, head dimension] are kept over all steps: split over the whole mesh.

    Along the heads, as the kernels that compute them are; along the head dimension if there are too few heads.
    """
    chosen = next((axis for axis in (-2, -1) if shape[axis] % mesh.size == 0), None)
    return P(*(AXES if axis - len(shape) == chosen else None for axis in range(len(shape))))


def constrain_heads(x: jax.Array) -> jax.Array:
    """Constrains keys or values to `heads_spec`. Returns `x` itself without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty or mesh.size == 1 else jax.lax.with_sharding_constraint(x, heads_spec(x.shape, mesh))


def sequence_shards() -> int:
    """Number of shards of the token axis on the current mesh (1 without one)."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in SEQUENCE)


def axis_size(axis: str) -> int:
    """Size of one axis of the current mesh (1 without one)."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape[axis]


def device_count() -> int:
    """Number of devices in the current mesh (1 without one)."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size
