"""What a training step does to its examples, on the device: other loudness of frequencies, noise, and gaps.

Voices that were never heard are the difficulty of the speech encoder: nothing here moves the sound in time.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from itjax.media.containers import SAMPLE_RATE

# B examples · n samples · K = n / 2 + 1 frequencies · F video frames

NOISY, NOISE_DB = 0.8, (0.0, 40.0)  # the share of noisy examples, and their ratio of signal to noise
MAX_COLOR = 2.0  # of noise, whose power falls with frequency to the power of 0 (white) to this
TILTED, TILT_DB = 0.8, 2.0  # the share of tilted examples, and the standard deviation of the tilt per octave
# SpecAugment (arXiv 1904.08779) hides a band of the mel scale, and spans of time; here the latter in the features of the
# convolutions, as wav2vec 2.0 does (arXiv 2006.11477, appendix B)
MAX_BAND = 0.2  # of the mel scale
SPANS, MAX_SPAN = 2, 6  # of each example; frames of a span, from 0 to this


def disturbed(key: Array, samples: Float[Array, "B n"]) -> Float[Array, "B n"]:
    """Most samples with a tilted spectrum and noise of a random colour, all without a random band of frequencies."""
    length = samples.shape[1]
    keys = iter(jax.random.split(key, 7))
    uniform = lambda low, high: jax.random.uniform(next(keys), (len(samples), 1), minval=low, maxval=high)
    hertz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    octaves = np.log2(hertz.clip(60) / 1000).astype(np.float32)
    mel = np.log1p(hertz / 700).astype(np.float32) / np.log1p(SAMPLE_RATE / 2 / 700)  # 0 to 1
    tilt = TILT_DB * jax.random.normal(next(keys), (len(samples), 1)) * (uniform(0, 1) < TILTED)
    spectrum = jnp.fft.rfft(samples) * 10 ** (tilt * octaves / 20)
    color, ratio, noisy = uniform(0, MAX_COLOR), uniform(*NOISE_DB), uniform(0, 1) < NOISY
    parts = jax.random.normal(next(keys), (2, *spectrum.shape))
    noise = jax.lax.complex(parts[0], parts[1]) * 2 ** (-color / 2 * octaves)
    gain = jnp.sqrt(_power(spectrum) / _power(noise) * 10 ** (-ratio / 10))
    spectrum = spectrum + jnp.where(noisy, gain, 0) * noise
    low, width = jax.random.uniform(next(keys), (2, len(samples), 1))
    width = MAX_BAND * width
    low = low * (1 - width)
    hidden = (mel >= low) & (mel < low + width)
    return jnp.fft.irfft(jnp.where(hidden, 0, spectrum), length)


def _power(spectrum: Complex[Array, "B K"]) -> Float[Array, "B 1"]:
    return jnp.sum(spectrum.real**2 + spectrum.imag**2, axis=1, keepdims=True)


def heard(key: Array, count: int, num_frames: int) -> Bool[Array, "B F"]:
    """True outside the hidden spans."""
    for_lengths, for_starts = jax.random.split(key)
    lengths = jax.random.randint(for_lengths, (count, SPANS, 1), 0, MAX_SPAN + 1)
    starts = jax.random.randint(for_starts, (count, SPANS, 1), 1 - MAX_SPAN, num_frames)
    frames = np.arange(num_frames)
    return ~jnp.any((frames >= starts) & (frames < starts + lengths), axis=1)
