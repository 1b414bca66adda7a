"""What a video's sound tells about its lips where no truth is known: how loud each frame is, and whether anyone speaks."""

import numpy as np
from jaxtyping import Bool, Float, Float32

from itjax.media.containers import FRAME_RATE, SAMPLE_RATE

# n samples at 16 kHz · F frames

PER_FRAME = SAMPLE_RATE // FRAME_RATE  # samples
RANGE = 40.0  # dB below the loud parts of a clip that still count as sound
SPEECH = 25.0  # dB below the loud parts: what is quieter is taken for silence
LOUD = 95  # percentile of the frames' levels
FLOOR = -70.0  # dB of full scale: what is quieter is silence, however quiet the rest
VOWELS = (500.0, 1500.0)  # Hz: the first two formants of open vowels, for which the jaw drops


def loudness(samples: Float32[np.ndarray, " n"], frames: int) -> Float[np.ndarray, " F"]:
    """Level of each frame's 40 ms, from 0 (40 dB below the loud parts, or less) to about 1. Silence after the end."""
    level = _decibels(samples, frames)
    return ((level - _loud(level)) / RANGE + 1).clip(0, 1.25)


def speaking(samples: Float32[np.ndarray, " n"], frames: int) -> Bool[np.ndarray, " F"]:
    """Frames that are less than 25 dB quieter than the loud parts. Not a speech detector: music is loud, too."""
    level = _decibels(samples, frames)
    return level > max(_loud(level) - SPEECH, FLOOR)


def open_vowels(samples: Float32[np.ndarray, " n"], frames: int) -> Float[np.ndarray, " F"]:
    """Amplitude from 500 to 1500 Hz, where open vowels have their energy: what a mouth's opening follows.

    Averaged over three frames. Hisses are loud through nearly shut teeth: overall loudness tells less about the mouth.
    """
    spectrum = np.fft.rfft(_per_frame(samples, frames) * np.hanning(PER_FRAME), axis=1)
    pitch = np.fft.rfftfreq(PER_FRAME, 1 / SAMPLE_RATE)
    band = (pitch >= VOWELS[0]) & (pitch < VOWELS[1])
    amplitude = np.sqrt((np.abs(spectrum[:, band]) ** 2).sum(1))
    return np.convolve(np.pad(amplitude, 1, "edge"), (0.25, 0.5, 0.25), "valid")


def _decibels(samples: np.ndarray, frames: int) -> np.ndarray:
    return 10 * np.log10((_per_frame(samples, frames) ** 2).mean(1) + 1e-12)


def _per_frame(samples: np.ndarray, frames: int) -> np.ndarray:
    padded = np.zeros(frames * PER_FRAME)
    heard = samples[: len(padded)]
    padded[: len(heard)] = heard
    return padded.reshape(frames, PER_FRAME)


def _loud(level: np.ndarray) -> float:
    return max(float(np.percentile(level, LOUD)), FLOOR)
