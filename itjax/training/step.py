"""One training step: accumulated gradients, clipping, AdamW, weight average. Pure functions of arrays."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import KeyPath, PyTreeDef
from jaxtyping import Array, Bool, Float

from itjax.config import DiTSizes
from itjax.models.dit import DiT
from itjax.parallel.sharding import constrain, parameter_spec
from itjax.training import objective
from itjax.training.config import Training
from itjax.training.objective import Batch, RandomDraws
from itjax.training.parameters import cast_for_compute, merge
from itjax.training.state import TrainState, learning_rate, optimizer_transform, shardings

# B examples · X text tokens


class Report(NamedTuple):
    """Metrics of a step.

    `good`: loss and gradients of this step and all before it were finite. After a step that was not, the state no longer
    changes, so the host may check later and still finds the last good state.
    """

    good: Bool[Array, ""]
    loss: Float[Array, ""]
    losses: Float[Array, " B"]
    times: Float[Array, " B"]
    gradient_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]


def network(sizes: DiTSizes, settings: Training) -> DiT:
    """The DiT for training, with matrix products in the settings' dtype."""
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
    """The state after a step on `batch`, and its report. `good`: that of the previous report."""
    parts = settings.accumulation
    # part i takes every parts-th example, starting at i, so that each device splits its own examples
    split = lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
    split_batch = jax.tree.map(split, batch)

    def add(total, part: Batch):
        metrics, gradients = gradients_of(settings, sizes, state.trainable, frozen, part, null_text)
        return jax.tree.map(jnp.add, total, gradients), metrics

    if parts == 1:
        (losses, times), gradients = gradients_of(settings, sizes, state.trainable, frozen, batch, null_text)
    else:
        zeros = jax.tree.map(jnp.zeros_like, state.trainable)
        gradients, metrics = jax.lax.scan(add, zeros, split_batch)
        gradients = jax.tree.map(lambda x: x / parts, gradients)
        losses, times = (x.swapaxes(0, 1).reshape(-1) for x in metrics)
    norm, loss = optax.tree.norm(gradients), losses.mean()
    good = good & jnp.isfinite(norm) & jnp.isfinite(loss)
    rate = learning_rate(settings.optimizer)(state.step)
    updated = _updated(settings, state, gradients)
    state = jax.tree.map(lambda new, old: jnp.where(good, new, old), updated, state)
    # every process reports all examples
    return state, Report(good, loss, constrain(losses), constrain(times), norm, rate)


def compile_step(
    settings: Training, sizes: DiTSizes, state: TrainState, mesh: Mesh
) -> Callable[..., tuple[TrainState, Report]]:
    """`train_step` compiled as one program for all steps; the input state is donated. Runs with the same settings share it.

    Args:
        settings: Static, like `sizes`.
        sizes: Sizes of the DiT.
        state: The first state, or its shapes with shardings. The output state gets exactly these shardings: on some meshes
            the compiler would choose equivalent but differently spelled ones, and the second step would be compiled again.
        mesh: The report is replicated on all of its devices.
    """
    leaves, structure = jax.tree.flatten(shardings(state))
    return _compile_step(settings, sizes, tuple(leaves), structure, mesh)


@lru_cache(maxsize=1)  # as in the other trainers: nobody trains with two settings in turn
def _compile_step(
    settings: Training, sizes: DiTSizes, leaves: tuple[NamedSharding, ...], structure: PyTreeDef, mesh: Mesh
) -> Callable[..., tuple[TrainState, Report]]:
    out_shardings = jax.tree.unflatten(structure, leaves), NamedSharding(mesh, P())
    return jax.jit(partial(train_step, settings, sizes), donate_argnums=0, out_shardings=out_shardings)


def gradients_of(
    settings: Training, sizes: DiTSizes, trainable: dict, frozen: dict, batch: Batch, null_text: Float[Array, "X Dt"]
) -> tuple[tuple[Float[Array, " B"], Float[Array, " B"]], dict]:
    """Losses and τ of the examples, and the gradient of their mean loss, sharded like the parameters."""
    draws = objective.draw_randoms(batch, settings.seed, settings.times, settings.dropout)

    def mean_loss(trainable: dict):
        losses = losses_of(settings, sizes, trainable, frozen, batch, draws, null_text)
        return losses.mean(), losses

    gradients, losses = jax.grad(mean_loss, has_aux=True)(trainable)
    return (losses, draws.times), jax.tree.map_with_path(_as_stored, gradients)


def losses_of(
    settings: Training, sizes: DiTSizes, trainable: dict, frozen: dict, batch: Batch, draws: RandomDraws,
    null_text: Float[Array, "X Dt"],
) -> Float[Array, " B"]:  # fmt: skip
    """The loss of each example for the given draws."""
    net = network(sizes, settings)
    parameters = merge(frozen, cast_for_compute(trainable, net.dtype))
    return objective.losses(net, parameters, batch, draws, null_text, settings.references, settings.region_weight)


def _as_stored(path: KeyPath, gradient: Array) -> Array:
    """Shards a gradient like its parameter, so that it is reduced into shards (reduce-scatter) and not into full copies."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return gradient
    return jax.lax.with_sharding_constraint(gradient, parameter_spec(path, gradient.shape, mesh))


def _updated(settings: Training, state: TrainState, gradients: dict) -> TrainState:
    updates, optimizer = optimizer_transform(settings.optimizer).update(gradients, state.optimizer, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)
    ema = None
    if state.ema is not None:
        decay = settings.optimizer.ema
        ema = jax.tree.map(lambda mean, new: decay * mean + (1 - decay) * new, state.ema, trainable)
    return TrainState(state.step + 1, trainable, optimizer, ema)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples over the mesh's data axis."""
    return NamedSharding(mesh, P("data"))
