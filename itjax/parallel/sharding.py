"""Where arrays live: the mesh, how parameters are stored on it, and the constraints that activations carry.

Mesh axes: `data` splits videos (or training examples), `context` splits the tokens that ask in self-attention, `ulysses`
splits tokens outside and heads inside self-attention (arXiv 2309.14509). Parameters are stored split over all devices
(FSDP), each along its longest axis that divides; the compiler gathers them layer by layer.
"""

import math

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from itjax.errors import UserError

AXES = ("data", "context", "ulysses")
SEQUENCE = ("context", "ulysses")
_SMALL = 2**14  # elements: smaller parameters (biases, norms) are not worth a gather


def make_mesh(ulysses: int = 0, context: int = 0, *, heads: int, devices: list | None = None) -> Mesh:
    """The mesh of all devices for one video. Sizes of 0 are chosen: as many ways over heads as divide them, rest context.

    Raises:
        UserError: where ulysses does not divide the heads or the sizes do not divide the devices.
    """
    devices = devices or jax.devices()
    count = len(devices)
    if min(ulysses, context) < 0:
        raise UserError(f"--ulysses_size {ulysses}, --ring_size {context}: at least 1, or 0 to have them chosen")
    ulysses = ulysses or math.gcd(heads, max(1, count // (context or 1)))
    if heads % ulysses:
        raise UserError(f"--ulysses_size {ulysses} does not divide the {heads} attention heads")
    context = context or max(1, count // ulysses)
    if count % (ulysses * context):
        raise UserError(f"--ulysses_size {ulysses} times --ring_size {context} does not divide the {count} device(s)")
    shape = (count // (ulysses * context), context, ulysses)
    # Auto axes: under the default (Explicit) every reshape would need its sharding spelled out
    return Mesh(np.asarray(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3)


def parameter_sharding(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """How a parameter of this shape is stored on the mesh (see `parameter_spec`)."""
    return NamedSharding(mesh, parameter_spec(shape, mesh))


def parameter_spec(shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    """FSDP over the whole mesh: along the last axis if it divides, else the longest that does; replicated where small.

    The last axis is the output features: of a torch Linear those are rows, so that a shard is one contiguous read.
    """
    axes = [axis for axis in range(len(shape)) if shape[axis] % mesh.size == 0]
    if mesh.size == 1 or not axes or math.prod(shape) < _SMALL:
        return P()
    chosen = axes[-1] if axes[-1] == len(shape) - 1 else max(axes, key=lambda axis: shape[axis])
    return P(*(AXES if axis == chosen else None for axis in range(len(shape))))


def with_shardings(tree, mesh: Mesh, dtype=None):
    """ShapeDtypeStructs of `tree` with the sharding each is stored in, and another dtype where one is given."""
    struct = lambda x: jax.ShapeDtypeStruct(x.shape, dtype or x.dtype, sharding=parameter_sharding(x.shape, mesh))
    return jax.tree.map(struct, tree)


def constrain(x: jax.Array, *axes) -> jax.Array:
    """`x` with its dimensions over the named mesh axes. Without a mesh (one device, tests) it is `x` itself."""
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty or mesh.size == 1 else jax.lax.with_sharding_constraint(x, P(*axes))


def sequence_shards() -> int:
    """How many parts the tokens are split into under the current mesh (1 without one)."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in SEQUENCE)


def axis_size(axis: str) -> int:
    """Ways of one axis of the current mesh (1 without one)."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape[axis]


def devices() -> int:
    """Devices of the current mesh (1 without one)."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size
