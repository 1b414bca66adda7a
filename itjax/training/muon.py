"""Muon: the momentum of each matrix, orthogonalised (K. Jordan, "Muon", 2024; at scale: arXiv 2502.16982)."""

import math

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float
from optax.contrib import scale_by_muon

from itjax.parallel.sharding import AXES

MOMENTUM = 0.95
RMS = 0.2  # of an update's elements, in learning rates: about that of AdamW, so that both take the same rates
AT_ONCE = 2**23  # elements of matrices that are orthogonalised together


def muon(learning_rate: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """The updates of stacked matrices [layers, inputs, outputs]."""
    return optax.chain(
        optax.trace(MOMENTUM, nesterov=True),
        optax.stateless(lambda momentum, _: jax.tree.map(orthogonalised, momentum)),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def orthogonalised(stack: Float[Array, "L i o"]) -> Float[Array, "L i o"]:
    """Each layer's matrix with all singular values near one, then scaled to elements of `RMS`.

    The iteration multiplies a matrix by itself, so that a split matrix would be summed over all devices in each of its
    steps. Instead whole matrices are spread over the devices, and the results are brought back.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _each_layer(stack)
    layers = len(stack)
    filled = jnp.pad(stack, ((0, -layers % mesh.size), (0, 0), (0, 0)))  # the iteration leaves zeros as they are
    spread = jax.shard_map(_each_layer, in_specs=P(AXES), out_specs=P(AXES))(filled)
    return spread[:layers]


def _each_layer(stack: Float[Array, "L i o"]) -> Float[Array, "L i o"]:
    """Small matrices together, which do not fill a GPU one by one; large ones in turn, for the sake of memory."""
    together = max(1, AT_ONCE // math.prod(stack.shape[1:]))
    iteration = scale_by_muon(beta=0.0, nesterov=False)  # only Newton and Schulz's iteration: what comes in has momentum
    scale = RMS * math.sqrt(max(stack.shape[1:]))
    each = lambda matrix: scale * iteration.update(matrix, iteration.init(matrix))[0]
    return jax.lax.map(each, stack, batch_size=min(together, len(stack)))
