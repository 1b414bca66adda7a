"""Loudness and pitch of speech, frame by frame: what the gestures of a drawn person follow."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

from itjax.media.containers import FRAME_RATE, SAMPLE_RATE
from itjax.synthetic.voice import Phoneme

# F frames · n samples

SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
WINDOW, SPECTRUM = 1024, 2048  # samples: 64 ms around a frame's middle, padded for the autocorrelation
PITCHES = (60, 400)  # Hz
VOICED = 0.5  # autocorrelation, relative to the power, from which a frame has a pitch
OCTAVE = 0.9  # of the highest peak of the autocorrelation: a peak from which its period may be the pitch's
QUIET = 0.1  # relative to the loudest: below it a frame has no pitch


class Prosody(NamedTuple):
    """Loudness and pitch in 0..1 of the speaker's own range, 0 in silence; and whether the person speaks. One per frame."""

    loudness: Float[np.ndarray, " F"]
    pitch: Float[np.ndarray, " F"]
    speaking: Bool[np.ndarray, " F"]


def prosody(samples: Float32[np.ndarray, " n"], phonemes: Sequence[Phoneme], num_frames: int) -> Prosody:
    """The prosody of speech as long as `num_frames` frames."""
    speaking = np.zeros(num_frames, bool)
    for symbol, start, stop in phonemes:
        if symbol:
            speaking[int(start * FRAME_RATE) : int(np.ceil(stop * FRAME_RATE))] = True
    if not speaking.any():
        return Prosody(np.zeros(num_frames), np.zeros(num_frames), speaking)
    frames = samples[: num_frames * SAMPLES_PER_FRAME].reshape(num_frames, SAMPLES_PER_FRAME)
    power = np.sqrt(np.mean(frames.astype(np.float64) ** 2, axis=1))
    loudness = np.where(speaking, power / max(float(np.quantile(power[speaking], 0.95)), 1e-9), 0.0).clip(0, 1)
    hertz, periodic = _pitch(samples, num_frames)
    voiced = speaking & (periodic > VOICED) & (loudness > QUIET)
    if voiced.sum() < 2:
        return Prosody(loudness, np.zeros(num_frames), speaking)
    low, high = np.quantile(np.log2(hertz[voiced]), (0.05, 0.95))
    relative = (np.log2(hertz[voiced]) - low) / max(high - low, 0.1)
    between = np.interp(np.arange(num_frames), np.flatnonzero(voiced), relative.clip(0, 1))
    return Prosody(loudness, np.where(speaking, between, 0.0), speaking)


def _pitch(samples: Float32[np.ndarray, " n"], num_frames: int) -> tuple[Float[np.ndarray, " F"], Float[np.ndarray, " F"]]:
    """Pitch in Hz by autocorrelation, and how periodic the sound is (0..1)."""
    padded = np.pad(samples, WINDOW)
    starts = np.arange(num_frames) * SAMPLES_PER_FRAME + SAMPLES_PER_FRAME // 2 + WINDOW // 2
    window = np.hanning(WINDOW)
    pieces = padded[starts[:, None] + np.arange(WINDOW)] * window
    correlation = lambda x: np.fft.irfft(np.abs(np.fft.rfft(x, SPECTRUM)) ** 2)[..., : WINDOW // 2]
    lags = slice(SAMPLE_RATE // PITCHES[1], SAMPLE_RATE // PITCHES[0])
    measured = correlation(pieces) / correlation(window)  # the window alone would favour short periods
    inner = measured[:, lags]
    peak = (inner >= measured[:, lags.start - 1 : lags.stop - 1]) & (inner >= measured[:, lags.start + 1 : lags.stop + 1])
    # twice the period is almost as good: the first of the high peaks
    best = (peak & (inner >= OCTAVE * inner.max(1, keepdims=True))).argmax(1)
    periodic = measured[np.arange(num_frames), best + lags.start] / np.maximum(measured[:, 0], 1e-12)
    return SAMPLE_RATE / (best + lags.start), periodic.clip(0, 1)
