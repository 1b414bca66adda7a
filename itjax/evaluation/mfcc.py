"""Mel-frequency cepstral coefficients as python_speech_features computes them, which SyncNet was trained on.

Written out because that package is no longer maintained, and librosa's filters and frames differ.
"""

import numpy as np
from jaxtyping import Float, Num

# n samples · T frames of 10 ms

RATE = 16000
WINDOW, STEP, FFT = 400, 160, 512  # samples: 25 ms, 10 ms
FILTERS, COEFFICIENTS, LIFTER = 26, 13, 22
PREEMPHASIS = 0.97
BLOCK = 4096  # frames at a time: spectra are 20 times as large as the sound


def mfcc(samples: Num[np.ndarray, " n"]) -> Float[np.ndarray, "T 13"]:
    """13 coefficients every 10 ms, the first replaced by the log energy. `samples`: 16 kHz, as 16-bit levels.

    The last frame is filled up with zeros; there is no window function.
    """
    signal = np.asarray(samples, np.float64)
    signal = np.append(signal[:1], signal[1:] - PREEMPHASIS * signal[:-1])
    count = 1 + max(0, -(-(len(signal) - WINDOW) // STEP))
    signal = np.pad(signal, (0, max(0, (count - 1) * STEP + WINDOW - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::STEP][:count]
    return np.concatenate([_cepstra(frames[start : start + BLOCK]) for start in range(0, count, BLOCK)])


def _cepstra(frames: Float[np.ndarray, "T 400"]) -> Float[np.ndarray, "T 13"]:
    power = np.abs(np.fft.rfft(frames, FFT)) ** 2 / FFT
    cepstra = np.log(_positive(power @ _filters().T)) @ _cosines().T
    cepstra *= 1 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
    cepstra[:, 0] = np.log(_positive(power.sum(1)))
    return cepstra


def _positive(values: Float[np.ndarray, "*dims"]) -> Float[np.ndarray, "*dims"]:
    return np.where(values == 0, np.finfo(float).eps, values)


def _filters() -> Float[np.ndarray, "26 257"]:
    """Triangles between 0 and 8 kHz, evenly spaced in mel, their corners rounded down to bins of the FFT."""
    mels = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), FILTERS + 2)
    corners = np.floor((FFT + 1) * 700 * (10 ** (mels / 2595) - 1) / RATE)
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bins = np.arange(FFT // 2 + 1)
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.where(bins < middle, rising, falling).clip(0)


def _cosines() -> Float[np.ndarray, "13 26"]:
    """The first rows of the orthonormal discrete cosine transform (type 2)."""
    angles = np.pi / FILTERS * (np.arange(FILTERS) + 0.5) * np.arange(COEFFICIENTS)[:, None]
    scale = np.full((COEFFICIENTS, 1), np.sqrt(2 / FILTERS))
    scale[0] = np.sqrt(1 / FILTERS)
    return scale * np.cos(angles)
