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
from jaxtyping import Array, Float

from itjax.config import Wav2Vec2Sizes
from itjax.media.containers import FRAME_RATE
from itjax.models.wav2vec2 import Wav2Vec2
from itjax.synthetic.mouth import Mouth
from itjax.synthetic.phonemes import PHONEMES
from itjax.training.speech_encoder.settings import SpeechTraining
from itjax.training.speech_encoder.speech import SAMPLES_PER_FRAME, Spoken
from itjax.training.state import TrainState

# B examples · n samples · F video frames, n / 640 · D width

# of the mouth's five numbers in the drawn world: the squared error counts in units of their deviation
MEAN = Mouth(0.26, 0.48, 0.11, 0.29, 0.20)
DEVIATION = Mouth(0.24, 0.15, 0.23, 0.26, 0.21)


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

    def encode(self, samples: Float[Array, "B n"]) -> Float[Array, "B F layers D"]:
        """The features of all layers. Samples of any loudness: they are normalised to mean 0 and variance 1."""
        centred = samples - samples.mean(1, keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.mean(centred**2, 1, keepdims=True) + 1e-7)
        return self.encoder(normal, samples.shape[1] // SAMPLES_PER_FRAME)

    def __call__(self, samples: Float[Array, "B n"]) -> ReadOut:
        """Reads mouth and phonemes out from the last layer."""
        return self.read(self.encode(samples)[:, :, -1])

    def read(self, last: Float[Array, "B F D"]) -> ReadOut:
        """Reads mouth and phonemes out from the features of the last layer."""
        return ReadOut(self.mouth(last), self.phonemes(last))


class StepReport(NamedTuple):
    """Numbers of one step: the loss and its parts, and the norm of the gradient before clipping."""

    loss: Float[Array, ""]
    mouth: Float[Array, ""]
    phonemes: Float[Array, ""]
    gradient_norm: Float[Array, ""]


def loss(network: Listener, phoneme_weight: float, parameters: dict, batch: Spoken) -> tuple[Array, tuple[Array, Array]]:
    """Mean squared error of the mouth + `phoneme_weight` times the cross-entropy of the phonemes; and both parts."""
    read = network.apply({"params": parameters}, batch.samples)
    assert isinstance(read, ReadOut)
    target = (batch.mouth - jnp.asarray(MEAN)) / jnp.asarray(DEVIATION)
    mouth = jnp.mean((read.mouth - target) ** 2)
    phonemes = optax.softmax_cross_entropy_with_integer_labels(read.phonemes, batch.phonemes).mean()
    return mouth + phoneme_weight * phonemes, (mouth, phonemes)


def optimizer(settings: SpeechTraining) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101) with clipping of the gradient, without the learning rate, which each step is given."""
    matrices = partial(path_aware_map, lambda path, leaf: path[-1] in ("kernel", "direction"))
    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        optax.scale_by_adam(),
        optax.add_decayed_weights(settings.weight_decay, matrices),
    )


@partial(jax.jit, static_argnums=0)
def initial_state(settings: SpeechTraining) -> TrainState:
    """The state before the first step."""
    samples = jnp.zeros((1, round(settings.seconds * FRAME_RATE) * SAMPLES_PER_FRAME))
    parameters = Listener(settings.sizes).init(jax.random.key(settings.seed), samples)["params"]
    return TrainState(jnp.zeros((), jnp.int32), parameters, optimizer(settings).init(parameters), None)


def learning_rate(settings: SpeechTraining, step: int, spent: float) -> float:
    """Of step `step`, from 1: linear warm-up over steps, times a cosine over the budget, of which `spent` is spent."""
    warm = min(1.0, step / max(1, settings.warmup_steps))
    return settings.learning_rate * warm * 0.5 * (1 + float(np.cos(np.pi * spent)))


Step = Callable[[TrainState, Spoken, float], tuple[TrainState, StepReport]]


@lru_cache(maxsize=1)  # two runs of one process with the same settings compile it once
def compile_step(settings: SpeechTraining) -> Step:
    """(state, batch, learning rate) -> (state, report). The state is donated."""
    network, transform = Listener(settings.sizes), optimizer(settings)

    def step(state: TrainState, batch: Spoken, rate: Float[Array, ""] | float) -> tuple[TrainState, StepReport]:
        (total, (mouth, phonemes)), gradients = jax.value_and_grad(
            partial(loss, network, settings.phoneme_weight), has_aux=True
        )(state.trainable, batch)
        updates, moments = transform.update(gradients, state.optimizer, state.trainable)
        trained = jax.tree.map(lambda old, update: old - rate * update, state.trainable, updates)
        report = StepReport(total, mouth, phonemes, optax.tree.norm(gradients))
        return TrainState(state.step + 1, trained, moments, None), report

    return jax.jit(step, donate_argnums=0)
