"""The training state: initialised directly on its shards, never whole on one device. Excludes frozen parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from itjax.parallel.sharding import with_shardings
from itjax.training import muon
from itjax.training.config import Optimizer
from itjax.training.parameters import LORA, flat, is_layer_matrix, nested


class TrainState(NamedTuple):
    """Everything that a training step updates.

    `step`: number of finished steps. `trainable`: float32 masters. `ema`: their moving average, or None.
    """

    step: Int[Array, ""]
    trainable: dict
    optimizer: optax.OptState
    ema: dict | None


def learning_rate(settings: Optimizer) -> optax.Schedule:
    """Linear warm-up, then a constant rate or a cosine to zero; the first step has a rate above zero."""
    warm = max(1, settings.warmup_steps)
    warmed = lambda count: settings.learning_rate * jnp.minimum(1.0, (count + 1) / warm)
    if not settings.decay_steps:
        return warmed
    share = lambda count: jnp.clip((count - warm) / (settings.decay_steps - warm), 0, 1)
    return lambda count: warmed(count) * 0.5 * (1 + jnp.cos(jnp.pi * share(count)))


def optimizer_transform(settings: Optimizer) -> optax.GradientTransformation:
    """Gradient clipping, then AdamW (arXiv 1711.05101); or Muon for the matrices of the layers, and AdamW for all else.

    Only matrices have weight decay: not norms, biases, modulations.
    """
    is_matrix = lambda tree: nested({path: path.endswith(("kernel", *LORA)) for path in flat(tree)})
    rate = learning_rate(settings)
    adamw = optax.adamw(
        rate, settings.beta1, settings.beta2, settings.epsilon, weight_decay=settings.weight_decay, mask=is_matrix
    )
    if settings.name == "adamw":
        return optax.chain(optax.clip_by_global_norm(settings.clip_norm), adamw)
    by_name = {"muon": muon.muon(rate, settings.weight_decay), "adamw": adamw}
    name_of = lambda path: "muon" if is_layer_matrix(path) else "adamw"
    both = optax.partition(by_name, lambda tree: nested({path: name_of(path) for path in flat(tree)}))
    return optax.chain(optax.clip_by_global_norm(settings.clip_norm), both)


def initial_state(trainable: dict, settings: Optimizer) -> TrainState:
    """The state before the first step (traceable)."""
    ema = jax.tree.map(jnp.copy, trainable) if settings.ema else None
    return TrainState(jnp.zeros((), jnp.int32), trainable, optimizer_transform(settings).init(trainable), ema)


def abstract_state(trainable: dict, settings: Optimizer, mesh: Mesh) -> TrainState:
    """Shapes and shardings of the state: moments and averages are sharded like their parameters."""
    return with_shardings(jax.eval_shape(lambda tree: initial_state(tree, settings), trainable), mesh)


def shardings(tree):
    """The sharding of each leaf."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def sharded_initial_state(trainable: dict, settings: Optimizer, mesh: Mesh) -> TrainState:
    """The state before the first step, on its shards."""
    out = shardings(abstract_state(jax.tree.map(_shape, trainable), settings, mesh))
    return jax.jit(lambda tree: initial_state(tree, settings), out_shardings=out)(trainable)


def _shape(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def as_tree(state: TrainState) -> dict:
    """The state as stored in a checkpoint."""
    return {name: part for name, part in state._asdict().items() if part is not None}


def from_tree(tree: dict) -> TrainState:
    """The inverse of `as_tree`."""
    return TrainState(tree["step"], tree["trainable"], tree["optimizer"], tree.get("ema"))
