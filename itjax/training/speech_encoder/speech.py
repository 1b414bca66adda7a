"""Labelled speech of the drawn world, and examples cut from clips that processes make ahead and this one keeps in memory."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int16, Int32

from itjax.errors import UserError
from itjax.media.containers import FRAME_RATE, SAMPLE_RATE
from itjax.synthetic import clip, mouth
from itjax.synthetic.phonemes import numbers
from itjax.synthetic.splits import Split
from itjax.training.speech_encoder.settings import SpeechTraining

# B examples · n samples · F video frames, n / 640

SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
FULL_SCALE = 32767  # of samples in 16 bits
# clips for reports have seeds of their own: no training example is cut from those that read-outs are fitted on
FIT_SEED, HELD_OUT_SEED = 10**6, 10**6 + 1
BLOCK = 16  # clips that a process makes at a time
MAX_WORKERS = 16


class Spoken(NamedTuple):
    """Speech with its truth in each frame: mouth (jaw, width, rounding, teeth, tongue) and index of the phoneme."""

    samples: Float32[np.ndarray, "*B n"] | Int16[np.ndarray, "*B n"]  # -1..1, or as many of `FULL_SCALE`
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


def workers_here() -> int:
    """Processes that make clips: none where the training itself needs the one or two cores there are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, cores - 1) if cores > 2 else 0


class Batches:
    """The batches of a run. They depend on the settings and the step only, not on the number of `workers`.

    Clips are kept in memory at 16 bits (1.6 GB of the default settings). Workers make them in the order in which they come
    into use; without workers, each is made when it is first needed.

    `waited`: seconds that `batch` waited for clips. `core_seconds`: those of the workers.
    """

    def __init__(self, settings: SpeechTraining, workers: int):
        self._settings, self._kept = settings, dict[int, Spoken]()
        self._made: list[Future[tuple[list[Spoken], float]]] = []
        self.waited = self.core_seconds = 0.0
        self._pool = None
        if workers:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(workers, context, initializer=_ends_with_its_parent)
            blocks = [range(at, min(at + BLOCK, settings.clips)) for at in range(0, settings.clips, BLOCK)]
            self._made = [self._pool.submit(_make_block, settings.seed, block, settings.clip_seconds) for block in blocks]

    def batch(self, done: int) -> Spoken:
        """The examples of the step after `done` steps, with samples in 16 bits.

        Raises:
            UserError: If espeak-ng is not installed, or a worker was killed.
        """
        settings = self._settings
        rng = np.random.default_rng((settings.seed, 0, done))
        in_use = min(settings.clips, settings.first_clips + settings.more_clips * done)
        clip_frames, num_frames = (round(x * FRAME_RATE) for x in (settings.clip_seconds, settings.seconds))
        chosen = rng.integers(in_use, size=settings.batch)
        starts = rng.integers(clip_frames - num_frames + 1, size=settings.batch)
        began = time.perf_counter()
        clips = [self._clip(int(number)) for number in chosen]
        self.waited += time.perf_counter() - began
        return stack([cut(spoken, int(start), num_frames) for spoken, start in zip(clips, starts, strict=True)])

    def _clip(self, number: int) -> Spoken:
        if number not in self._kept:
            if self._made:
                self._take(number // BLOCK)
            else:
                self._kept[number] = _in_16_bits((self._settings.seed, number), self._settings.clip_seconds)
        return self._kept[number]

    def _take(self, block: int) -> None:
        try:
            made, core_seconds = self._made[block].result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process that makes speech was killed (is there too little memory?): run the same command to continue"
            ) from error
        self._kept |= {block * BLOCK + place: spoken for place, spoken in enumerate(made)}
        self.core_seconds += core_seconds

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


def _make_block(seed: int, block: range, seconds: float) -> tuple[list[Spoken], float]:
    began = time.process_time()
    return [_in_16_bits((seed, number), seconds) for number in block], time.process_time() - began


def _in_16_bits(seed: tuple[int, ...], seconds: float) -> Spoken:
    made = make(seed, seconds, "train")
    return made._replace(samples=np.round(made.samples * FULL_SCALE).astype(np.int16))


def _ends_with_its_parent() -> None:
    """In a worker: Ctrl-C is the parent's to handle, and a worker whose parent was killed would wait for it for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
