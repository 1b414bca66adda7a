"""The training step: the encoder with linear read-outs of mouth and phonemes on its last layer, their loss, and AdamW."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import path_aware_map
from jaxtyping import Array, Bool, Float

from itjax.config import Wav2Vec2Sizes
from itjax.media.containers import FRAME_RATE
from itjax.models.wav2vec2 import Wav2Vec2, frame_grid, resample
from itjax.synthetic.mouth import Mouth
from itjax.synthetic.phonemes import PHONEMES
from itjax.training.speech_encoder import disturb
from itjax.training.speech_encoder.settings import SpeechTraining
from itjax.training.speech_encoder.speech import FULL_SCALE, SAMPLES_PER_FRAME, Spoken
from itjax.training.state import TrainState

# B examples · n samples · F video frames, n / 640 · D width

# of the mouth's five numbers in the drawn world: the squared error counts in units of their deviation
MEAN = Mouth(0.26, 0.48, 0.11, 0.29, 0.20)
DEVIATION = Mouth(0.24, 0.15, 0.23, 0.26, 0.21)

Metrics = dict[str, Array]


class ReadOut(NamedTuple):
    """What the linear heads say of each frame: the mouth in units of DEVIATION from MEAN, and the phonemes' logits."""

    mouth: Float[Array, "B F 5"]
    phonemes: Float[Array, "B F P"]


class Listener(nn.Module):
    """The speech encoder with its heads. Its parameters under "encoder" are those of Wav2Vec2."""

    sizes: Wav2Vec2Sizes

    def setup(self) -> None:
        """Creates the encoder and the heads."""
        self.encoder = Wav2Vec2(self.sizes)
        self.mouth = nn.Dense(len(Mouth._fields))
        self.phonemes = nn.Dense(len(PHONEMES))

    def encode(
        self, samples: Float[Array, "B n"], heard: Bool[Array, "B F"] | None = None
    ) -> Float[Array, "B F layers D"]:  # fmt: skip
        """The features of all layers. Samples of any loudness: they are normalised to mean 0 and variance 1.

        Where `heard` is False, the features of the convolutions are zero.
        """
        num_frames = samples.shape[1] // SAMPLES_PER_FRAME
        centred = samples - samples.mean(1, keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.mean(centred**2, 1, keepdims=True) + 1e-7)
        if heard is None:
            return self.encoder(normal, num_frames)
        features = self.encoder.convolve(normal)
        features = resample(features, frame_grid(np.arange(num_frames), num_frames, features.shape[1]))
        return self.encoder.encode(jnp.where(heard[..., None], features, 0))

    def __call__(self, samples: Float[Array, "B n"], heard: Bool[Array, "B F"] | None = None) -> ReadOut:
        """Reads mouth and phonemes out from the last layer."""
        return self.read(self.encode(samples, heard)[:, :, -1])

    def read(self, last: Float[Array, "B F D"]) -> ReadOut:
        """Reads mouth and phonemes out from the features of the last layer."""
        return ReadOut(self.mouth(last), self.phonemes(last))


def loss(network: Listener, phoneme_weight: float, parameters: dict, batch: Spoken, key: Array) -> tuple[Array, Metrics]:
    """Mean squared error of the mouth + `phoneme_weight` times the cross-entropy of the phonemes, of a disturbed batch.

    Returns:
        The loss; and both parts.
    """
    for_sound, for_spans = jax.random.split(key)
    samples = disturb.disturbed(for_sound, jnp.asarray(batch.samples, jnp.float32) / FULL_SCALE)
    read = network.apply({"params": parameters}, samples, disturb.heard(for_spans, *batch.phonemes.shape))
    assert isinstance(read, ReadOut)
    target = (batch.mouth - jnp.asarray(MEAN)) / jnp.asarray(DEVIATION)
    mouth = jnp.mean((read.mouth - target) ** 2)
    phonemes = optax.softmax_cross_entropy_with_integer_labels(read.phonemes, batch.phonemes).mean()
    return mouth + phoneme_weight * phonemes, {"mouth": mouth, "phonemes": phonemes}


def learning_rate(settings: SpeechTraining) -> optax.Schedule:
    """Linear warm-up, from above zero at the first step, times a cosine that ends with zero after the last step."""
    warm, rate = max(1, settings.warmup_steps), settings.learning_rate
    cosine = lambda count: 0.5 * (1 + jnp.cos(jnp.pi * count / settings.steps))
    return lambda count: rate * jnp.minimum(1.0, (count + 1) / warm) * cosine(count)


def optimizer(settings: SpeechTraining) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101) with clipping of the gradient."""
    matrices = partial(path_aware_map, lambda path, leaf: path[-1] in ("kernel", "direction"))
    adamw = optax.adamw(learning_rate(settings), weight_decay=settings.weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(settings.clip_norm), adamw)


@partial(jax.jit, static_argnums=0)
def initial_state(settings: SpeechTraining) -> TrainState:
    """The state before the first step."""
    samples = jnp.zeros((1, round(settings.seconds * FRAME_RATE) * SAMPLES_PER_FRAME))
    parameters = Listener(settings.sizes).init(jax.random.key(settings.seed), samples)["params"]
    return TrainState(jnp.zeros((), jnp.int32), parameters, optimizer(settings).init(parameters), None)


@lru_cache(maxsize=1)  # two runs of one process with the same settings compile it once
def compile_step(settings: SpeechTraining) -> Callable[[TrainState, Spoken], tuple[TrainState, Metrics]]:
    """(state, batch with samples in 16 bits) -> (state, metrics). The state is donated.

    What is random depends on the seed and on the state's step.
    """
    network, transform = Listener(settings.sizes), optimizer(settings)

    def step(state: TrainState, batch: Spoken) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(settings.seed), state.step)
        objective = partial(loss, network, settings.phoneme_weight, batch=batch, key=key)
        (total, parts), gradients = jax.value_and_grad(objective, has_aux=True)(state.trainable)
        updates, moments = transform.update(gradients, state.optimizer, state.trainable)
        now = TrainState(state.step + 1, optax.apply_updates(state.trainable, updates), moments, None)
        norm, rate = optax.tree.norm(gradients), learning_rate(settings)(state.step)
        return now, {"loss": total, **parts, "gradient_norm": norm, "learning_rate": rate}

    return jax.jit(step, donate_argnums=0)
