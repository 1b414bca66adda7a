"""Labelled speech of the drawn world: examples cut from clips that are kept in memory, with noise and a tilted spectrum."""

import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Float32, Int32

from itjax.media.containers import FRAME_RATE, SAMPLE_RATE
from itjax.synthetic import clip, mouth
from itjax.synthetic.phonemes import numbers
from itjax.synthetic.splits import Split
from itjax.training.speech_encoder.settings import SpeechTraining

# B examples · n samples · F video frames, n / 640

SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
NOISY, NOISE_DB = 0.8, (0.0, 40.0)  # the share of noisy examples, and their ratio of signal to noise
MAX_COLOR = 2.0  # of noise, whose power falls with frequency to the power of 0 (white) to this
TILTED, TILT_DB = 0.8, 2.0  # the share of tilted examples, and the standard deviation of the tilt per octave
# clips for reports have seeds of their own: no training example is cut from those that read-outs are fitted on
FIT_SEED, HELD_OUT_SEED = 10**6, 10**6 + 1


class Spoken(NamedTuple):
    """Speech with its truth in each frame: mouth (jaw, width, rounding, teeth, tongue) and index of the phoneme."""

    samples: Float32[np.ndarray, "*B n"]
    mouth: Float32[np.ndarray, "*B F 5"]
    phonemes: Int32[np.ndarray, "*B F"]


def make(seed: tuple[int, ...], seconds: float, split: Split) -> Spoken:
    """The labelled speech of a seed.

    Raises:
        UserError: If espeak-ng is not installed.
    """
    num_frames = round(seconds * FRAME_RATE)
    said = clip.speech(seed, num_frames / FRAME_RATE, split)
    track = np.stack(mouth.track(said.phonemes, num_frames), axis=-1).astype(np.float32)
    return Spoken(said.samples, track, numbers(said.phonemes, num_frames, FRAME_RATE))


def make_many(seed: int, count: int, seconds: float, split: Split) -> Spoken:
    """`count` clips as one array each."""
    return stack([make((seed, number), seconds, split) for number in range(count)])


def stack(examples: Sequence[Spoken]) -> Spoken:
    """Stacks examples of the same length."""
    return Spoken(*(np.stack(parts) for parts in zip(*examples, strict=True)))


def cut(spoken: Spoken, start: int, num_frames: int) -> Spoken:
    """Frames `start` to `start + num_frames`, sound and truth."""
    frames = slice(start, start + num_frames)
    samples = slice(start * SAMPLES_PER_FRAME, (start + num_frames) * SAMPLES_PER_FRAME)
    return Spoken(spoken.samples[samples], spoken.mouth[frames], spoken.phonemes[frames])


def disturbed(rng: np.random.Generator, samples: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """Most samples with a tilted spectrum and with noise of a random colour, neither of which has a delay."""
    tilt = rng.normal(0, TILT_DB) * (rng.random() < TILTED)
    noisy, color, ratio = rng.random() < NOISY, rng.uniform(0, MAX_COLOR), rng.uniform(*NOISE_DB)
    octaves = np.log2(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE).clip(60) / 1000)
    spectrum = np.fft.rfft(samples) * 10 ** (tilt * octaves / 20)
    if noisy:
        noise = (rng.normal(size=len(octaves)) + 1j * rng.normal(size=len(octaves))) * 2 ** (-color / 2 * octaves)
        power = lambda x: float(np.sum(np.abs(x) ** 2))
        spectrum = spectrum + noise * np.sqrt(power(spectrum) / power(noise) * 10 ** (-ratio / 10))
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


class Batches:
    """The endless batches of a run, as a data source for grain. Batch i depends on the seed and i only.

    Clips are made when they are first needed, and kept in memory at 16 bits.
    """

    def __init__(self, settings: SpeechTraining):
        self._settings = settings
        self._kept: dict[int, Spoken] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, number: int) -> Spoken:
        """Batch `number`, used by step `number` + 1."""
        return stack([self._example(number, place) for place in range(self._settings.batch)])

    def _example(self, batch: int, place: int) -> Spoken:
        settings = self._settings
        rng = np.random.default_rng((settings.seed, 0, batch, place))
        spoken = self._clip(int(rng.integers(min(settings.clips, settings.first_clips + batch))))
        num_frames = round(settings.seconds * FRAME_RATE)
        part = cut(spoken, int(rng.integers(len(spoken.phonemes) - num_frames + 1)), num_frames)
        return part._replace(samples=disturbed(rng, part.samples.astype(np.float32) / 32767))

    def _clip(self, number: int) -> Spoken:
        with self._lock:
            if number not in self._kept:
                made = make((self._settings.seed, number), self._settings.clip_seconds, "train")
                self._kept[number] = made._replace(samples=np.round(made.samples * 32767).astype(np.int16))
            return self._kept[number]


def stream(settings: SpeechTraining, done: int) -> Iterator[Spoken]:
    """The batches after step `done`, made ahead in a thread."""
    batches = grain.MapDataset.source(Batches(settings))[done:]
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))
