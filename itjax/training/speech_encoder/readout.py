"""How much of the mouth is in the features: linear read-outs, fitted on training speech, of voices never heard."""

from collections.abc import Callable
from functools import lru_cache

import jax
import numpy as np
from jaxtyping import Float, Float32, Int

from itjax.config import Wav2Vec2Sizes
from itjax.synthetic.mouth import Mouth
from itjax.synthetic.phonemes import PHONEMES
from itjax.training.speech_encoder.speech import Spoken
from itjax.training.speech_encoder.step import Listener

# B clips · n samples · F video frames · N frames of all clips · D features

GATE = 0.85  # correlation of the jaw
RIDGE = 1e-3  # weight of the penalty, for features of deviation 1
BATCH = 32  # clips encoded at a time

Figures = dict[str, float]  # the correlation of each of the mouth's numbers, and the share of right phonemes


def figures(
    mouth: Float[np.ndarray, "N 5"], phonemes: Int[np.ndarray, " N"], truth: Spoken
) -> Figures:  # fmt: skip
    """Compares read mouths and phonemes with the truth, over the frames of all clips."""
    true = truth.mouth.reshape(-1, len(Mouth._fields))
    read = {name: _correlation(mouth[:, i], true[:, i]) for i, name in enumerate(Mouth._fields)}
    return read | {"phonemes": float(np.mean(phonemes == truth.phonemes.reshape(-1)))}


def _correlation(one: Float[np.ndarray, " N"], other: Float[np.ndarray, " N"]) -> float:
    deviations = float(np.std(one) * np.std(other))
    return float(np.mean((one - one.mean()) * (other - other.mean()))) / deviations if deviations > 1e-9 else 0.0


def read_out(
    fit_features: Float[np.ndarray, "N D"], fit: Spoken, features: Float[np.ndarray, "M D"], truth: Spoken
) -> Figures:
    """Reads mouth and phonemes out from `features` by ridge regression, fitted on `fit_features` and `fit`.

    A phoneme is the one whose indicator is read as the largest.
    """
    mean, deviation = fit_features.mean(0), fit_features.std(0) + 1e-6
    normal = lambda x: ((x - mean) / deviation).astype(np.float64)
    x, indicators = normal(fit_features), np.eye(len(PHONEMES))[fit.phonemes.reshape(-1)]
    y = np.concatenate([fit.mouth.reshape(len(x), -1), indicators], axis=1)
    covariance = x.T @ x / len(x) + RIDGE * np.eye(x.shape[1])
    weights = np.linalg.solve(covariance, x.T @ (y - y.mean(0)) / len(x))
    read = normal(features) @ weights + y.mean(0)
    return figures(read[:, : len(Mouth._fields)], read[:, len(Mouth._fields) :].argmax(1), truth)


def evaluate(sizes: Wav2Vec2Sizes, parameters: dict, fit: Spoken, truth: Spoken) -> dict[str, Figures]:
    """Figures of the encoder with `parameters` (of Listener) on the speech `truth`.

    Returns:
        "features": read out from all layers, as the DiT's audio adapter gets them: the gate is their "jaw". "last_layer":
        from the last layer alone. "head": what the trained heads say.
    """
    _, heads = _programs(sizes)
    fitted, heard = (encoded(sizes, parameters, part.samples) for part in (fit, truth))
    flat = lambda x: x.reshape(-1, x.shape[-1])
    every = lambda x: x.reshape(-1, x.shape[-2] * x.shape[-1])
    mouth, logits = (np.asarray(flat(part)) for part in heads(parameters, heard[:, :, -1]))
    return {
        "features": read_out(every(fitted), fit, every(heard), truth),
        "last_layer": read_out(flat(fitted[:, :, -1]), fit, flat(heard[:, :, -1]), truth),
        "head": figures(mouth, logits.argmax(1), truth),
    }


@lru_cache(maxsize=4)
def _programs(sizes: Wav2Vec2Sizes) -> tuple[Callable, Callable]:
    network = Listener(sizes)
    encode = jax.jit(lambda parameters, samples: network.apply({"params": parameters}, samples, method="encode"))
    heads = jax.jit(lambda parameters, last: network.apply({"params": parameters}, last, method="read"))
    return encode, heads


def encoded(
    sizes: Wav2Vec2Sizes, parameters: dict, samples: Float32[np.ndarray, "B n"]
) -> Float32[np.ndarray, "B F layers D"]:
    """Features of clips of the same length, a few at a time, the last of them padded to the same number."""
    encode, _ = _programs(sizes)
    padded = np.pad(samples, ((0, -len(samples) % BATCH), (0, 0)))
    parts = [np.asarray(encode(parameters, padded[i : i + BATCH])) for i in range(0, len(padded), BATCH)]
    return np.concatenate(parts)[: len(samples)]
