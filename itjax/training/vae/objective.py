"""The loss of the VAE, its optimizer, and a training step.

loss = Σ w·(ρ(x̂ - x) + GRADIENT·|∇x̂ - ∇x|) / Σ w + KL·kl, where the weight w is high around the mouth, which is a few percent
of the picture and whose shape must survive. ρ is the Charbonnier penalty, about |e|, and e² for errors too small to be seen:
an absolute error keeps the flat colours and hard edges of drawings, which a squared one would blur; its gradient term keeps
edges where they are (lids, lips). The KL term is just large enough that the encoder neither lets latents grow nor relies on
decimals that a noisy latent would lose.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key, UInt8

from itjax.config import VaeSizes
from itjax.models.vae import decode_whole, encode_whole
from itjax.training.parameters import flat, nested
from itjax.training.state import TrainState

# B batch · F pixel frames · H W pixels · T latent frames · h w = H/8 W/8 · C channels

VISIBLE = 0.02  # half-width of the Charbonnier penalty, of pixels in -1..1
GRADIENT = 0.5
KL = 1e-4


@dataclass(frozen=True)
class Recipe:
    """How the VAE is trained.

    Attributes:
        steps: Steps in total.
        image_steps: The first of them, on single pictures.
        images: Pictures per step.
        clips: Clips per step after that.
        clip_frames: Frames of each clip, 4n+1.
        mouth_weight: Weight of the pixels around a mouth, relative to 1 elsewhere; only in clips.
        learning_rate: Constant over pictures, then falling to zero along a cosine.
        warmup: Steps of linear warm-up, of pictures and of clips.
    """

    steps: int
    image_steps: int = 600
    images: int = 16
    clips: int = 2
    clip_frames: int = 9
    mouth_weight: float = 25.0
    learning_rate: float = 1e-3
    warmup: int = 50


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
    return TrainState(jnp.zeros((), jnp.int32), parameters, jax.jit(optimizer(recipe).init)(parameters), None)


def reconstruction_loss(
    made: Float[Array, "B F H W 3"], true: Float[Array, "B F H W 3"], weights: Float[Array, "B F H W"]
) -> Float[Array, ""]:
    """Σ w·(ρ(x̂ - x) + GRADIENT·|∇x̂ - ∇x|) / Σ w."""
    error = made - true
    visible = (jnp.sqrt(error**2 + VISIBLE**2) - VISIBLE).mean(-1)
    total = jnp.sum(weights * visible)
    for axis in (2, 3):
        # between two pixels the weight of the second one
        edges = jnp.abs(jnp.diff(error, axis=axis)).mean(-1)
        total += GRADIENT / 2 * jnp.sum(jax.lax.slice_in_dim(weights, 1, None, axis=axis) * edges)
    return total / jnp.sum(weights)


def kl_divergence(mean: Float[Array, "B T h w C"], log_variance: Float[Array, "B T h w C"]) -> Float[Array, ""]:
    """Of the latents from the standard normal distribution, in nats per number."""
    return jnp.mean(mean**2 + jnp.exp(log_variance) - 1 - log_variance) / 2


def loss(
    parameters: dict, video: UInt8[Array, "B F H W 3"], region: Bool[Array, "B F H W"], key: Key[Array, ""],
    sizes: VaeSizes, mouth_weight: Float[Array, ""],
) -> tuple[Float[Array, ""], dict[str, Array]]:  # fmt: skip
    """The loss of a batch, and its metrics. The latents are sampled with `key`."""
    true = video.astype(jnp.float32) / 127.5 - 1
    mean, log_variance = encode_whole(parameters, true, sizes)
    log_variance = jnp.clip(log_variance, -20, 5)
    z = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
    made = decode_whole(parameters, z, sizes)
    reconstruction = reconstruction_loss(made, true, 1 + (mouth_weight - 1) * region)
    kl = kl_divergence(mean, log_variance)
    squared = jnp.mean((jnp.clip(made, -1, 1) - true) ** 2)
    metrics = {"reconstruction": reconstruction, "kl": kl, "psnr": 10 * jnp.log10(4 / squared)}
    return reconstruction + KL * kl, metrics


def compile_step(sizes: VaeSizes, recipe: Recipe, seed: int) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """A jitted step(state, video, region, mouth_weight) -> (state, metrics); the state's buffers are reused."""
    transform = optimizer(recipe)

    def step(state: TrainState, video: Array, region: Array, mouth_weight: Array) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        (value, metrics), gradient = value_and_grad(state.trainable, video, region, key, sizes, mouth_weight)
        updates, moments = transform.update(gradient, state.optimizer, state.trainable)
        now = TrainState(state.step + 1, optax.apply_updates(state.trainable, updates), moments, None)
        metrics |= {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
        return now, metrics | {"learning_rate": learning_rate(recipe)(state.step)}

    return jax.jit(step, donate_argnums=0)
