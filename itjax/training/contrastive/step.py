"""The training step of CLIP (arXiv 2103.00020): both encoders with their projections, the symmetric loss, and AdamW."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import path_aware_map
from jaxtyping import Array, Bool, Float, Int, UInt8

from itjax.models.clip import Clip
from itjax.models.clip_pixels import clip_pixels
from itjax.models.umt5 import Umt5
from itjax.training.contrastive.scenes import Batch
from itjax.training.contrastive.settings import ContrastiveTraining
from itjax.training.state import TrainState

# B batch · H W pixels · X tokens of a prompt · N tokens of a picture · C features, twice a token's width
# E width of the comparison

TEMPERATURE = 0.07  # at first; the paper's, as is its lower bound
COLDEST = 0.01


class Compared(NamedTuple):
    """Pictures and prompts as unit vectors of one space, and the logarithm of the inverse temperature."""

    pictures: Float[Array, "B E"]
    prompts: Float[Array, "B E"]
    scale: Float[Array, ""]


class Towers(nn.Module):
    """Both encoders and their projections. Parameters "clip" and "umt5" are those of Clip and Umt5.

    The picture is represented by its class token and the mean of its patches, of the layer that the DiT is given; the
    prompt by the mean of its tokens.
    """

    settings: ContrastiveTraining

    def setup(self) -> None:
        """Creates the encoders and the projections."""
        self.clip, self.umt5 = Clip(self.settings.clip), Umt5(self.settings.umt5)
        self.picture_norm = nn.LayerNorm()
        self.picture_projection = nn.Dense(self.settings.embedding, use_bias=False)
        self.prompt_projection = nn.Dense(self.settings.embedding, use_bias=False)
        self.scale = self.param("scale", nn.initializers.constant(-np.log(TEMPERATURE)), ())

    def features(self, pictures: Float[Array, "B S S 3"]) -> Float[Array, "B C"]:
        """The class token and the mean of the patches of pictures that are normalised for CLIP."""
        tokens = self.clip(pictures)
        return jnp.concatenate([tokens[:, 0], tokens[:, 1:].mean(1)], axis=1)

    def prompts(self, ids: Int[Array, "B X"]) -> Float[Array, "B E"]:
        """Prompts as unit vectors. Padding has the id 0."""
        mask = (ids != 0).astype(jnp.int32)
        states = self.umt5(ids, mask) * mask[..., None]
        return _unit(self.prompt_projection(states.sum(1) / mask.sum(1, keepdims=True)))

    def pictures(self, pictures: Float[Array, "B S S 3"]) -> Float[Array, "B E"]:
        """Pictures as unit vectors."""
        return _unit(self.picture_projection(self.picture_norm(self.features(pictures))))

    def __call__(self, pictures: Float[Array, "B S S 3"], ids: Int[Array, "B X"]) -> Compared:
        """Compares pictures, which are normalised for CLIP, with prompts."""
        return Compared(self.pictures(pictures), self.prompts(ids), self.scale)


def _unit(x: Float[Array, "B E"]) -> Float[Array, "B E"]:
    return x * jax.lax.rsqrt(jnp.sum(x**2, -1, keepdims=True) + 1e-12)


def normalised(stills: UInt8[Array | np.ndarray, "B H W 3"], side: int) -> Float[Array, "B {side} {side} 3"]:
    """Stills as CLIP is given them in inference: at the video's size, in -1..1, then as `clip_pixels` says."""
    return jax.vmap(partial(clip_pixels, size=side))(jnp.asarray(stills, jnp.float32) / 127.5 - 1)


def same_prompts(ids: Int[Array, "B X"]) -> Bool[Array, "B B"]:
    """Which prompts are the same as which others."""
    return jnp.all(ids[:, None] == ids[None], axis=-1)


def loss(compared: Compared, ids: Int[Array, "B X"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The mean of both cross-entropies, picture to prompt and prompt to picture; and the share of pictures that are right.

    A prompt that says the same as an example's own is no negative for it.
    """
    logits = jnp.minimum(jnp.exp(compared.scale), 1 / COLDEST) * compared.pictures @ compared.prompts.T
    own = jnp.eye(len(ids), dtype=bool)
    logits = jnp.where(same_prompts(ids) & ~own, -jnp.inf, logits)
    labels = jnp.arange(len(ids))
    entropy = lambda x: optax.softmax_cross_entropy_with_integer_labels(x, labels).mean()
    return (entropy(logits) + entropy(logits.T)) / 2, jnp.mean(jnp.argmax(logits, 1) == labels)


def learning_rate(settings: ContrastiveTraining) -> optax.Schedule:
    """Linear warm-up, then a cosine to zero."""
    warmup = min(settings.warmup, settings.steps // 2)
    return optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, warmup, settings.steps + 1)


def optimizer(settings: ContrastiveTraining) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101) with clipping of the gradient; only matrices decay."""
    matrices = partial(path_aware_map, lambda path, _: path[-1] == "kernel")
    adamw = optax.adamw(learning_rate(settings), 0.9, 0.98, weight_decay=settings.weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(1.0), adamw)


@partial(jax.jit, static_argnums=0)
def initial_state(settings: ContrastiveTraining) -> TrainState:
    """The state before the first step."""
    side, ids = settings.clip.image, jnp.ones((1, settings.text_len), jnp.int32)
    parameters = Towers(settings).init(jax.random.key(settings.seed), jnp.zeros((1, side, side, 3)), ids)["params"]
    return TrainState(jnp.zeros((), jnp.int32), parameters, optimizer(settings).init(parameters), None)


Step = Callable[[TrainState, tuple[Batch, ...]], tuple[TrainState, dict[str, Array]]]


@lru_cache(maxsize=1)  # two runs of one process with the same settings compile it once
def compile_step(settings: ContrastiveTraining) -> Step:
    """(state, batches of pictures of different sizes) -> (state, metrics). The state is donated."""
    network, transform = Towers(settings), optimizer(settings)

    def total(parameters: dict, batches: tuple[Batch, ...]) -> tuple[Array, tuple[Array, Array]]:
        pictures = jnp.concatenate([normalised(batch.stills, settings.clip.image) for batch in batches])
        ids = jnp.concatenate([batch.ids for batch in batches])
        compared = network.apply({"params": parameters}, pictures, ids)
        assert isinstance(compared, Compared)
        value, right = loss(compared, ids)
        return value, (right, jnp.exp(-compared.scale))

    def step(state: TrainState, batches: tuple[Batch, ...]) -> tuple[TrainState, dict[str, Array]]:
        (value, (right, temperature)), gradient = jax.value_and_grad(total, has_aux=True)(state.trainable, batches)
        updates, moments = transform.update(gradient, state.optimizer, state.trainable)
        now = TrainState(state.step + 1, optax.apply_updates(state.trainable, updates), moments, None)
        metrics = {"loss": value, "right": right, "temperature": temperature, "gradient_norm": optax.tree.norm(gradient)}
        return now, metrics | {"learning_rate": learning_rate(settings)(state.step)}

    return jax.jit(step, donate_argnums=0)
