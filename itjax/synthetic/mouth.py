"""From phonemes to mouth shapes, one per video frame."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from itjax.media.containers import FRAME_RATE
from itjax.synthetic.voice import Phoneme

# F video frames · T steps of the fine grid

FINE_RATE = 200  # Hz: phonemes are 30 to 150 ms long
SMOOTHING = 0.12  # seconds: the mouth moves gradually from one sound to the next (coarticulation)
CLOSING = 0.06  # seconds: lips close and open faster than that


Track: TypeAlias = Any  # a number, or an array with one value per frame


class Mouth(NamedTuple):
    """The shape of a mouth, each parameter in 0..1; over time, arrays with one value per frame."""

    jaw: Track  # opening
    width: Track  # 0 narrow, 1 spread
    rounding: Track  # how far the lips are pushed forward
    teeth: Track
    tongue: Track


REST = Mouth(0.0, 0.45, 0.0, 0.0, 0.0)

# by the first letter of the IPA symbol: vowels by height and rounding, consonants by place of articulation
SHAPES = {
    "a": Mouth(0.95, 0.55, 0.0, 0.4, 0.2), "ɑ": Mouth(1.0, 0.45, 0.0, 0.25, 0.1), "ɒ": Mouth(0.85, 0.3, 0.4, 0.2, 0.1),
    "æ": Mouth(0.9, 0.7, 0.0, 0.5, 0.3), "ʌ": Mouth(0.7, 0.5, 0.0, 0.35, 0.2), "ɐ": Mouth(0.6, 0.5, 0.0, 0.35, 0.2),
    "ə": Mouth(0.4, 0.5, 0.0, 0.3, 0.2), "ɚ": Mouth(0.4, 0.4, 0.3, 0.3, 0.3), "ɜ": Mouth(0.45, 0.4, 0.3, 0.3, 0.3),
    "ɛ": Mouth(0.65, 0.65, 0.0, 0.5, 0.3), "e": Mouth(0.55, 0.75, 0.0, 0.5, 0.3), "ɪ": Mouth(0.4, 0.75, 0.0, 0.5, 0.35),
    "i": Mouth(0.3, 1.0, 0.0, 0.6, 0.4), "ᵻ": Mouth(0.35, 0.7, 0.0, 0.5, 0.35), "ʊ": Mouth(0.4, 0.2, 0.75, 0.2, 0.2),
    "u": Mouth(0.3, 0.05, 1.0, 0.1, 0.1), "o": Mouth(0.6, 0.15, 0.9, 0.15, 0.1), "ɔ": Mouth(0.75, 0.2, 0.7, 0.15, 0.1),
    "w": Mouth(0.2, 0.0, 1.0, 0.05, 0.0), "j": Mouth(0.25, 0.9, 0.0, 0.5, 0.4), "ɹ": Mouth(0.3, 0.25, 0.5, 0.3, 0.3),
    "r": Mouth(0.3, 0.35, 0.4, 0.3, 0.4), "ɾ": Mouth(0.3, 0.5, 0.0, 0.5, 0.7), "l": Mouth(0.4, 0.5, 0.0, 0.4, 1.0),
    "ɫ": Mouth(0.4, 0.45, 0.1, 0.4, 0.9), "n": Mouth(0.25, 0.5, 0.0, 0.4, 0.8), "ŋ": Mouth(0.35, 0.5, 0.0, 0.3, 0.2),
    "t": Mouth(0.2, 0.55, 0.0, 0.7, 0.6), "d": Mouth(0.25, 0.55, 0.0, 0.6, 0.6), "s": Mouth(0.12, 0.65, 0.0, 1.0, 0.1),
    "z": Mouth(0.15, 0.65, 0.0, 1.0, 0.1), "ʃ": Mouth(0.2, 0.2, 0.7, 0.9, 0.1), "ʒ": Mouth(0.2, 0.2, 0.7, 0.9, 0.1),
    "θ": Mouth(0.25, 0.5, 0.0, 0.6, 1.0), "ð": Mouth(0.25, 0.5, 0.0, 0.6, 1.0), "f": Mouth(0.1, 0.5, 0.0, 0.9, 0.0),
    "v": Mouth(0.1, 0.5, 0.0, 0.9, 0.0), "k": Mouth(0.35, 0.5, 0.0, 0.3, 0.2), "ɡ": Mouth(0.35, 0.5, 0.0, 0.3, 0.2),
    "x": Mouth(0.35, 0.5, 0.0, 0.3, 0.2), "h": Mouth(0.45, 0.5, 0.0, 0.3, 0.1), "ʔ": Mouth(0.2, 0.5, 0.0, 0.3, 0.1),
    "p": Mouth(0.0, 0.4, 0.1, 0.0, 0.0), "b": Mouth(0.0, 0.4, 0.1, 0.0, 0.0), "m": Mouth(0.0, 0.45, 0.0, 0.0, 0.0),
}  # fmt: skip
LIP_CLOSURES = ("p", "b", "m")  # sounds that need closed lips
GLIDES = {"aɪ": "ɪ", "aʊ": "ʊ", "eɪ": "ɪ", "oʊ": "ʊ", "əʊ": "ʊ", "ɔɪ": "ɪ", "dʒ": "ʒ", "tʃ": "ʃ"}  # their final sounds


def shape_of(symbol: str) -> Mouth:
    """The mouth shape of a phoneme. Unlisted sounds look like schwa; silence is a mouth at rest."""
    return SHAPES.get(symbol[0], SHAPES["ə"]) if symbol else REST


def track(phonemes: tuple[Phoneme, ...], num_frames: int) -> Mouth:
    """The mouth in each frame at 25 frames/s: frame f is the mean of the 40 ms from f/25 s. Then at rest."""
    fine = np.tile(np.asarray(REST), (num_frames * FINE_RATE // FRAME_RATE, 1))
    shut = np.zeros(len(fine))
    for symbol, start, stop in _split(phonemes):
        steps = slice(round(start * FINE_RATE), round(stop * FINE_RATE))
        fine[steps] = shape_of(symbol)
        shut[steps] = float(symbol[:1] in LIP_CLOSURES)
    fine, shut = _smoothed(fine, SMOOTHING), np.minimum(1, 1.5 * _smoothed(shut[:, None], CLOSING))
    fine[:, 0] *= 1 - shut[:, 0]
    frames = fine.reshape(num_frames, FINE_RATE // FRAME_RATE, -1).mean(1).astype(np.float32)
    return Mouth(*frames.T)


def _split(phonemes: tuple[Phoneme, ...]) -> list[Phoneme]:
    """Splits diphthongs and affricates into their two sounds."""
    parts: list[Phoneme] = []
    for symbol, start, stop in phonemes:
        if symbol[:2] in GLIDES:
            middle = (start + stop) / 2
            parts += [Phoneme(symbol[0], start, middle), Phoneme(GLIDES[symbol[:2]], middle, stop)]
        else:
            parts.append(Phoneme(symbol, start, stop))
    return parts


def _smoothed(values: Float[np.ndarray, "T C"], seconds: float) -> Float[np.ndarray, "T C"]:
    window = np.hanning(round(seconds * FINE_RATE) + 2)[1:-1]
    window /= window.sum()
    before = len(window) // 2
    padded = np.pad(values, ((before, len(window) - 1 - before), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, window, "valid") for column in padded.T], axis=1)


def at(mouth: Mouth, frame: int) -> Mouth:
    """The mouth shape in one frame."""
    return Mouth(*(float(values[frame]) for values in mouth))


def rest_track(num_frames: int) -> Mouth:
    """A mouth at rest in all frames."""
    return Mouth(*(np.full(num_frames, value, np.float32) for value in REST))
