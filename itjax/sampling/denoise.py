"""From noise to latents: guided Euler steps, some of which TeaCache may skip. No files, no pixels."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from itjax.config import Sampler
from itjax.models.apply import apply
from itjax.models.dit import DiT, TimeFeatures
from itjax.models.dit_block import BranchIndices, KeysValues, Persons
from itjax.parallel.sharding import SEQUENCE, constrain
from itjax.sampling.guidance import Guide, Momentum

# B guidance branches · T h w C latents · L video tokens · D width


class EulerSteps(NamedTuple):
    """The Euler steps: times (1000 .. 0), time features, and whether each step runs the blocks or skips them."""

    t: Float[Array, "*steps"]
    t_next: Float[Array, "*steps"]
    time_features: TimeFeatures
    run: Bool[Array, "*steps"]


class Context(NamedTuple):
    """Latents of the context frames, and how many of them are pinned (one in the first chunk)."""

    latents: Float[Array, "M h w C"]
    pinned: Int[Array, ""]


class Conditions(NamedTuple):
    """All inputs of the DiT in a chunk except the noisy latent and the time."""

    mask_and_reference: Float[Array, "T h w Cc"]
    keys_values: KeysValues
    branches: BranchIndices
    persons: Persons | None
    context: Context


class DenoisingState(NamedTuple):
    """State passed between steps: the latent, APG's momentum, and the blocks' last residual (None without TeaCache)."""

    latent: Float[Array, "T h w C"]
    momentum: Momentum
    residual: Float[Array, "B L D"] | None


def pin(latent: Float[Array, "T h w C"], context: Context) -> Float[Array, "T h w C"]:
    """Replaces the first latent frames with the pinned context latents."""
    num_context = len(context.latents)
    is_pinned = (jnp.arange(num_context) < context.pinned)[:, None, None, None]
    return latent.at[:num_context].set(jnp.where(is_pinned, context.latents, latent[:num_context]))


def constrain_state(state: DenoisingState) -> DenoisingState:
    """Keeps the state's sharding the same at the start and end of a step: otherwise the next step would be recompiled."""
    residual = None if state.residual is None else constrain(state.residual, "data", SEQUENCE, None)
    return DenoisingState(constrain(state.latent), constrain(state.momentum), residual)


def initial_state(noise: Float[Array, "T h w C"], net: DiT, context: Context, sampler: Sampler) -> DenoisingState:
    """The state before the first step: noise with the context pinned, and zero buffers."""
    momentum = jnp.zeros((sampler.branches - 1 if sampler.apg else 0, *noise.shape))
    residual = None
    if sampler.teacache_threshold is not None:
        residual = jnp.zeros(net.tokens_shape((sampler.branches, *noise.shape)), net.dtype)
    return constrain_state(DenoisingState(pin(noise, context), momentum, residual))


def velocities(
    net: DiT, parameters: dict, state: DenoisingState, step: EulerSteps, conditions: Conditions
) -> tuple[Float[Array, "B T h w C"], Float[Array, "B L D"] | None]:
    """The velocity (noise - data) of each branch, and the blocks' residual (None without TeaCache)."""
    call = partial(apply, net, parameters)
    latents = state.latent[None]  # the same for all branches
    grid = net.token_grid(latents.shape)
    tokens = call(latents, conditions.mask_and_reference[None], method="embed")

    def run(x, _):
        inputs = conditions.keys_values, conditions.branches, conditions.persons
        y = call(x, grid, step.time_features.blocks[None], *inputs, method="transform")
        return y, y - x

    if state.residual is None:
        transformed, residual = run(tokens, None)[0], None
    else:
        skip = lambda x, residual: (x + residual, residual)
        transformed, residual = jax.lax.cond(step.run, run, skip, tokens, state.residual)
    return call(transformed, grid, step.time_features.head[None], method="unembed"), residual


def euler_step(
    net: DiT, parameters: dict, guide: Guide, state: DenoisingState, step: EulerSteps, conditions: Conditions
) -> DenoisingState:
    """One Euler step (rectified flow, arXiv 2209.03003), then pinning: z += (t' - t)/1000 · v with v = noise - data."""
    predicted, residual = velocities(net, parameters, state, step, conditions)
    velocity, momentum = guide(predicted, state.momentum)
    latent = state.latent + (step.t_next - step.t) / 1000 * velocity
    return constrain_state(DenoisingState(pin(latent, conditions.context), momentum, residual))
