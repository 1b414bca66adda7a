"""One training step: gradients over parts of the batch, clipping, AdamW, the average. Pure functions of arrays."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float

from itjax.config import DiTSizes
from itjax.models.dit import DiT
from itjax.parallel.sharding import constrain, parameter_spec
from itjax.training import objective
from itjax.training.config import Training
from itjax.training.objective import Batch, Draws
from itjax.training.parameters import for_compute, merged
from itjax.training.state import TrainState, learning_rate, shardings, transformation

# B examples · X text tokens


class Report(NamedTuple):
    """What a step tells.

    `good`: this step and all before it were finite; after one that was not, the state stays as it is, so that the host may
    look later and still finds the last good one.
    """

    good: Bool[Array, ""]
    loss: Float[Array, ""]
    losses: Float[Array, " B"]
    times: Float[Array, " B"]
    gradient_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]


def network(sizes: DiTSizes, settings: Training) -> DiT:
    """The DiT that trains, with products in the settings' dtype."""
    return DiT(sizes, jnp.dtype(settings.dtype), settings.remat)


def train_step(
    settings: Training,
    sizes: DiTSizes,
    state: TrainState,
    good: Bool[Array, ""],
    frozen: dict,
    batch: Batch,
    null_text: Float[Array, "X Dt"],
) -> tuple[TrainState, Report]:
    """The state after a step on `batch`, and what it tells. `good`: that of the report before."""
    parts = settings.accumulation
    # part i takes every parts-th example from i on: so each device splits its own
    split = lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
    split_batch = jax.tree.map(split, batch)

    def add(total, part: Batch):
        found, gradients = gradients_of(settings, sizes, state.trainable, frozen, part, null_text)
        return jax.tree.map(jnp.add, total, gradients), found

    if parts == 1:
        (losses, times), gradients = gradients_of(settings, sizes, state.trainable, frozen, batch, null_text)
    else:
        nothing = jax.tree.map(jnp.zeros_like, state.trainable)
        gradients, found = jax.lax.scan(add, nothing, split_batch)
        gradients = jax.tree.map(lambda x: x / parts, gradients)
        losses, times = (x.swapaxes(0, 1).reshape(-1) for x in found)
    norm, loss = optax.tree.norm(gradients), losses.mean()
    good = good & jnp.isfinite(norm) & jnp.isfinite(loss)
    rate = learning_rate(settings.optimizer)(state.step)
    updated = _updated(settings, state, gradients)
    state = jax.tree.map(lambda new, old: jnp.where(good, new, old), updated, state)
    # every process tells of all examples
    return state, Report(good, loss, constrain(losses), constrain(times), norm, rate)


def jitted(settings: Training, sizes: DiTSizes, state: TrainState, mesh: Mesh) -> Callable[..., tuple[TrainState, Report]]:
    """`train_step` as one program for all steps, in the memory of the state that it is given.

    Args:
        settings: a constant of the program, as `sizes` is.
        sizes: those of the DiT.
        state: the first one, or its shapes with their shardings. The next one lies in the same places, in the same words:
            left to itself the compiler finds others for them on some meshes, and the second step is compiled anew.
        mesh: what is told of a step lies whole on each of its devices.
    """
    places = shardings(state), NamedSharding(mesh, P())
    return jax.jit(partial(train_step, settings, sizes), donate_argnums=0, out_shardings=places)


def gradients_of(
    settings: Training, sizes: DiTSizes, trainable: dict, frozen: dict, batch: Batch, null_text: Float[Array, "X Dt"]
) -> tuple[tuple[Float[Array, " B"], Float[Array, " B"]], dict]:
    """Losses and τ of the examples, and the gradient of their mean loss, which lies as the parameters do."""
    draws = objective.draw(batch, settings.seed, settings.times, settings.dropout)

    def mean_loss(trainable: dict):
        losses = losses_of(settings, sizes, trainable, frozen, batch, draws, null_text)
        return losses.mean(), losses

    gradients, losses = jax.grad(mean_loss, has_aux=True)(trainable)
    return (losses, draws.times), jax.tree.map(_as_stored, gradients)


def losses_of(
    settings: Training, sizes: DiTSizes, trainable: dict, frozen: dict, batch: Batch, draws: Draws,
    null_text: Float[Array, "X Dt"],
) -> Float[Array, " B"]:  # fmt: skip
    """The loss of each example under given draws."""
    net = network(sizes, settings)
    parameters = merged(frozen, for_compute(trainable, net.dtype))
    return objective.losses(net, parameters, batch, draws, null_text, settings.references, settings.region_weight)


def _as_stored(gradient: Array) -> Array:
    """A gradient split over the devices as its parameter is: the mesh then sums into the parts, not into copies."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return gradient
    return jax.lax.with_sharding_constraint(gradient, parameter_spec(gradient.shape, mesh))


def _updated(settings: Training, state: TrainState, gradients: dict) -> TrainState:
    updates, optimizer = transformation(settings.optimizer).update(gradients, state.optimizer, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)
    ema = None
    if state.ema is not None:
        decay = settings.optimizer.ema
        ema = jax.tree.map(lambda mean, new: decay * mean + (1 - decay) * new, state.ema, trainable)
    return TrainState(state.step + 1, trainable, optimizer, ema)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples over the mesh's data axis."""
    return NamedSharding(mesh, P("data"))
