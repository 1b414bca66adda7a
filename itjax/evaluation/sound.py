"""What a video's sound tells about its lips where no truth is known: how loud each frame is, and whether anyone speaks."""

import numpy as np
from jaxtyping import Bool, Float, Float32

from itjax.media.containers import FRAME_RATE, SAMPLE_RATE

# n samples at 16 kHz · F frames

RANGE = 40.0  # dB below the loud parts of a clip that still count as sound
SPEECH = 25.0  # dB below the loud parts: what is quieter is taken for silence
LOUD = 95  # percentile of the frames' levels
FLOOR = -70.0  # dB of full scale: what is quieter is silence, however quiet the rest


def loudness(samples: Float32[np.ndarray, " n"], frames: int) -> Float[np.ndarray, " F"]:
    """Level of each frame's 40 ms, from 0 (40 dB below the loud parts, or less) to about 1. Silence after the end."""
    level = _decibels(samples, frames)
    return ((level - _loud(level)) / RANGE + 1).clip(0, 1.25)


def speaking(samples: Float32[np.ndarray, " n"], frames: int) -> Bool[np.ndarray, " F"]:
    """Frames that are less than 25 dB quieter than the loud parts. Not a speech detector: music is loud, too."""
    level = _decibels(samples, frames)
    return level > max(_loud(level) - SPEECH, FLOOR)


def _decibels(samples: np.ndarray, frames: int) -> np.ndarray:
    per_frame = SAMPLE_RATE // FRAME_RATE
    padded = np.zeros(frames * per_frame)
    heard = samples[: len(padded)]
    padded[: len(heard)] = heard
    power = (padded.reshape(frames, per_frame) ** 2).mean(1)
    return 10 * np.log10(power + 1e-12)


def _loud(level: np.ndarray) -> float:
    return max(float(np.percentile(level, LOUD)), FLOOR)
