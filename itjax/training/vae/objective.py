"""The loss of the VAE, its optimizer, and a training step.

loss = Σ w·(ρ(x̂ - x) + GRADIENT·|∇x̂ - ∇x|) / Σ w + KL·kl, where the weight w is high around the mouth, which is a few percent
of the picture and whose shape must survive. ρ is the Charbonnier penalty, about |e|, and e² for errors too small to be seen:
an absolute error keeps the flat colours and hard edges of drawings, which a squared one would blur; its gradient term keeps
edges where they are (lids, lips). The KL term is just large enough that the encoder neither lets latents grow nor relies on
decimals that a noisy latent would lose.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from itjax.config import VaeSizes
from itjax.models.vae import decode_whole, encode_whole
from itjax.training.parameters import flat, nested
from itjax.training.state import TrainState
from itjax.training.vae.recipe import Recipe

# B batch · F pixel frames · H W pixels · T latent frames · h w = H/8 W/8 · C channels

VISIBLE = 0.02  # half-width of the Charbonnier penalty, of pixels in -1..1
GRADIENT = 0.5
KL = 1e-4


def learning_rate(recipe: Recipe) -> optax.Schedule:
    """Warm-up to a constant rate for pictures; for clips another warm-up, and a cosine to zero."""
    rate, images = recipe.learning_rate, min(recipe.image_steps, recipe.steps)
    clips = max(recipe.warmup + 1, recipe.steps - images)
    pictures = lambda count: rate * jnp.minimum(1.0, (count + 1) / recipe.warmup)
    cosine = optax.warmup_cosine_decay_schedule(rate / recipe.warmup, rate, recipe.warmup, clips)
    return optax.join_schedules([pictures, cosine], [images])


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Clipping, and AdamW with a slight decay of kernels."""
    kernels = lambda tree: nested({path: path.endswith("kernel") for path in flat(tree)})
    adamw = optax.adamw(learning_rate(recipe), 0.9, 0.99, weight_decay=1e-3, mask=kernels)
    return optax.chain(optax.clip_by_global_norm(1.0), adamw)


def initial_state(parameters: dict, recipe: Recipe) -> TrainState:
    """The state before the first step."""
    moments = jax.jit(optimizer(recipe).init)(parameters)
    return TrainState(jnp.zeros((), jnp.int32), parameters, moments, jax.tree.map(jnp.copy, parameters))


def moving_average(before: dict | None, now: dict, step: Int[Array, ""], keep: float) -> dict:
    """The moving average after `step` steps: over the last 1 / (1 - keep) of them, at first over a tenth of them."""
    part = jnp.minimum(keep, (step + 1) / (step + 10))
    return jax.tree.map(lambda old, new: part * old + (1 - part) * new, before, now)


def region(mouths: Float[Array, "B F 4"], height: int, width: int) -> Bool[Array, "B F H W"]:
    """The pixels of boxes (left, top, right, bottom), those on their borders included."""
    left, top, right, bottom = jnp.moveaxis(jnp.trunc(mouths), -1, 0)[..., None, None]
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    return (rows >= top) & (rows <= bottom) & (columns >= left) & (columns <= right)


def reconstruction_loss(
    made: Float[Array, "B F H W 3"], true: Float[Array, "B F H W 3"], weights: Float[Array, "B F H W"],
    visible: float = VISIBLE,
) -> Float[Array, ""]:  # fmt: skip
    """Σ w·(ρ(x̂ - x) + GRADIENT·|∇x̂ - ∇x|) / Σ w. ρ squares errors that are smaller than `visible`."""
    error = made - true
    penalty = (jnp.sqrt(error**2 + visible**2) - visible).mean(-1)
    total = jnp.sum(weights * penalty)
    for axis in (2, 3):
        # between two pixels the weight of the second one
        edges = jnp.abs(jnp.diff(error, axis=axis)).mean(-1)
        total += GRADIENT / 2 * jnp.sum(jax.lax.slice_in_dim(weights, 1, None, axis=axis) * edges)
    return total / jnp.sum(weights)


def kl_divergence(mean: Float[Array, "B T h w C"], log_variance: Float[Array, "B T h w C"]) -> Float[Array, ""]:
    """Of the latents from the standard normal distribution, in nats per number."""
    return jnp.mean(mean**2 + jnp.exp(log_variance) - 1 - log_variance) / 2


def loss(
    parameters: dict, video: UInt8[Array, "B F H W 3"], mouths: Float[Array, "B F 4"], key: Key[Array, ""],
    sizes: VaeSizes, mouth_weight: Float[Array, ""], dtype: DTypeLike,
) -> tuple[Float[Array, ""], dict[str, Array]]:  # fmt: skip
    """The loss of a batch, and its metrics. The latents are sampled with `key`; convolutions compute in `dtype`."""
    true = video.astype(jnp.float32) / 127.5 - 1
    mean, log_variance = encode_whole(parameters, true, sizes, dtype)
    log_variance = jnp.clip(log_variance, -20, 5)
    z = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
    made = decode_whole(parameters, z, sizes, dtype)
    reconstruction, metrics = of_pictures(made, true, mouths, mouth_weight)
    kl = kl_divergence(mean, log_variance)
    return reconstruction + KL * kl, metrics | {"kl": kl}


def of_pictures(
    made: Float[Array, "B F H W 3"], true: Float[Array, "B F H W 3"], mouths: Float[Array, "B F 4"],
    mouth_weight: Float[Array, ""],
) -> tuple[Float[Array, ""], dict[str, Array]]:  # fmt: skip
    """The loss of decoded pictures with a weight of the mouths, and its metrics."""
    inside = region(mouths, *true.shape[2:4])
    reconstruction = reconstruction_loss(made, true, 1 + (mouth_weight - 1) * inside)
    squared = jnp.mean((jnp.clip(made, -1, 1) - true) ** 2, axis=-1)
    in_mouth = jnp.sum(squared * inside) / jnp.maximum(jnp.sum(inside), 1)
    decibels = lambda error: 10 * jnp.log10(4 / error)
    return reconstruction, {
        "reconstruction": reconstruction,
        "psnr": decibels(squared.mean()),
        "mouth_psnr": decibels(in_mouth),
    }


@functools.cache
def compile_step(
    sizes: VaeSizes, recipe: Recipe, seed: int, loss: Callable[..., tuple[Array, dict[str, Array]]]
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """A jitted step(state, video, mouths, mouth_weight, *known) -> (state, metrics); the state's buffers are reused.

    `loss`: that of this module, or one which takes what is `known` after the same arguments.
    """
    transform = optimizer(recipe)

    def step(
        state: TrainState, video: Array, mouths: Array, mouth_weight: Array, *known: dict
    ) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        (value, metrics), gradient = value_and_grad(
            state.trainable, video, mouths, key, sizes, mouth_weight, jnp.dtype(recipe.dtype), *known
        )
        updates, moments = transform.update(gradient, state.optimizer, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        average = moving_average(state.ema, trainable, state.step, recipe.average)
        metrics |= {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
        return TrainState(state.step + 1, trainable, moments, average), metrics | {
            "learning_rate": learning_rate(recipe)(state.step)
        }

    return jax.jit(step, donate_argnums=0)
