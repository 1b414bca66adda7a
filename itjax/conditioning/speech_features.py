"""Speech features at the video's frame rate from a prepared track (16 kHz, at its final loudness) of any length.

A short track is encoded as a whole, like in the official code. A long one is encoded on demand, in windows: the
convolutions give the same result as for the whole track, and the transformer gets ten seconds of context on either side.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from itjax.compilation import JitForFewCalls
from itjax.media.containers import FRAME_RATE as FPS
from itjax.media.containers import SAMPLE_RATE
from itjax.models.wav2vec2 import FrameGrid, Moments, Wav2Vec2, first_layer_moments, frame_grid, resample

# Lengths in frames of the single window of a short track, the next longer one: the network is compiled for few lengths.
SINGLE_WINDOW_FRAMES = tuple(seconds * FPS for seconds in (5, 10, 20, 45, 90, 180))
SAMPLES_PER_BLOCK = 1 << 22  # samples read at once when computing statistics of a whole track


class WindowSizes(NamedTuple):
    """Window lengths in frames: the features of `core` frames are kept, `context` frames on each side are discarded."""

    core: int
    context: int


LONG_TRACK_WINDOWS = WindowSizes(core=60 * FPS, context=10 * FPS)


def frame_count(num_samples: int) -> int:
    """Number of video frames for `num_samples` samples, rounded down as in the official code, but at least one."""
    # the order of operations matters: at some lengths (1.16 s: 28 frames), float rounding decides
    return max(1, int(num_samples / SAMPLE_RATE * FPS))


@partial(JitForFewCalls, static_argnames="model")
def _encode(
    model: Wav2Vec2,
    params: dict,
    samples: Float[Array, "1 N"],
    moments: Moments,
    grid: FrameGrid,
    mask: Bool[Array, "1 F"],
) -> Float[Array, "F layers D"]:
    network = model.bind({"params": params})
    steps = network.convolve(samples, moments)
    return network.encode(resample(steps, grid), mask)[0].astype(jnp.float32)


class SpeechFeatures:
    """The features of one track, by frame. Keeps the track and the last two windows in memory.

    The features of a frame do not depend on the order of requests.
    """

    def __init__(self, model: Wav2Vec2, params: dict, track: Float[np.ndarray, " N"], windows: WindowSizes) -> None:
        """Computes the mean and variance of the whole track, and the moments of the network's first layer."""
        sizes = model.sizes
        self.num_frames = frame_count(len(track))
        self._model, self._params, self._track, self._windows = model, params, track, windows
        self._num_samples = max(len(track), sizes.receptive_field)  # a shorter track is padded with silence to give one step
        self._num_steps = sizes.steps(self._num_samples)
        self._mean, self._scale = _mean_and_scale(track)
        kernel = np.asarray(params["feature_extractor"]["conv_0"]["kernel"], np.float32)
        self._moments = first_layer_moments(kernel, sizes.conv_strides[0], self._samples, self._num_samples)
        # two cached windows: a chunk's frames can span two windows, and then each window is encoded only once
        self._core_of = lru_cache(maxsize=2)(self._encode_core)

    def window(self, start: int, stop: int) -> Float[np.ndarray, "F layers D"]:
        """The features of frames start..stop-1.

        Raises:
            ValueError: if frames are outside the track.
        """
        if not 0 <= start < stop <= self.num_frames:
            raise ValueError(f"frames {start}..{stop} requested from a track with {self.num_frames} frames")
        core = self._windows.core
        numbers = range(start // core, (stop - 1) // core + 1)
        return np.concatenate([self._core_of(n)[max(0, start - n * core) : stop - n * core] for n in numbers])

    def _encode_core(self, number: int) -> Float[np.ndarray, "F layers D"]:
        """The core of window `number`. All windows have the same shapes; frames outside the track are masked."""
        core, context = self._windows
        frames = number * core + np.arange(-context, core + context)
        inside = (frames >= 0) & (frames < self.num_frames)
        grid = frame_grid(frames.clip(0, self.num_frames - 1), self.num_frames, self._num_steps)
        first = int(grid.left[0])
        sizes = self._model.sizes
        # as many steps as the frames of any track can span: two a frame, and one more as the track's end is rounded down to
        # frames; plus one as they may start between two steps, plus the last one's neighbour
        num_steps = 2 * len(frames) + 3
        start, length = first * sizes.stride, (num_steps - 1) * sizes.stride + sizes.receptive_field
        samples = self._samples(start, start + length)
        grid = grid._replace(left=grid.left - first)
        encoded = _encode(
            self._model, self._params, jnp.asarray(samples[None]), self._moments, grid, jnp.asarray(inside[None])
        )
        return np.asarray(encoded)[context : context + core]

    def _samples(self, start: int, stop: int) -> Float[np.ndarray, " n"]:
        """Samples of the track, normalised to mean 0 and variance 1; zeros beyond its end."""
        samples = ((self._track[start:stop] - self._mean) * self._scale).astype(np.float32)
        return np.pad(samples, (0, stop - start - len(samples)))


def speech_features(model: Wav2Vec2, params: dict, track: Float[np.ndarray, " N"]) -> SpeechFeatures:
    """The features of a track: one window for up to three minutes, windows of fixed length for longer tracks.

    The single window is padded to one of a few lengths and masked after the track's end.
    """
    num_frames = frame_count(len(track))
    core = next((length for length in SINGLE_WINDOW_FRAMES if num_frames <= length), None)
    windows = LONG_TRACK_WINDOWS if core is None else WindowSizes(core, context=0)
    return SpeechFeatures(model, params, track, windows)


def _blocks(track: Float[np.ndarray, " N"]) -> Iterator[Float[np.ndarray, " n"]]:
    for start in range(0, len(track), SAMPLES_PER_BLOCK):
        yield track[start : start + SAMPLES_PER_BLOCK].astype(np.float64)


def _mean_and_scale(track: Float[np.ndarray, " N"]) -> tuple[float, float]:
    """(mean, 1/sqrt(variance + 1e-7)), as used by wav2vec2's feature extractor, computed block by block in float64."""
    mean = sum(block.sum() for block in _blocks(track)) / len(track)
    variance = sum(((block - mean) ** 2).sum() for block in _blocks(track)) / len(track)
    return float(mean), float((variance + 1e-7) ** -0.5)
