"""Batches of drawn frames for the VAE, drawn by other processes. The step's number determines a batch, not their number."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from itjax.errors import ComputationError
from itjax.synthetic.source import DrawnClips

# B batch · F pixel frames · H W pixels

SECONDS = 4.0  # of a clip
FIRST = 64  # clips of which the first batch is made
STEPS_PER_CLIP = 3  # a new clip after every third step
POOL = 256  # the newest clips, of which a batch is made
AHEAD = 32  # clips that are drawn before they are needed
ENDLESS = 10**9  # clips; each is drawn when its time comes


class Frames(NamedTuple):
    """Videos, and where the mouth is in each frame: left, top, right, bottom in pixels."""

    video: UInt8[np.ndarray, "B F H W 3"]
    mouths: Float32[np.ndarray, "B F 4"]


class _Drawn(NamedTuple):
    video: UInt8[np.ndarray, "F H W 3"]
    mouths: Float32[np.ndarray, "F 4"]
    core_seconds: float


class DrawnFrames:
    """Random parts of a pool of drawn training clips, which grows to `POOL` and then drops its oldest.

    `waited`: seconds that `batch` waited for the drawing; `drawing`: core-seconds of the drawing of clips that were used.
    """

    def __init__(self, seed: int, size: int, workers: Executor):
        self._seed, self._clips = seed, DrawnClips(seed, ENDLESS, SECONDS, (size, size))
        self._workers = workers
        self._pool: dict[int, Future[_Drawn]] = {}
        self._used: set[int] = set()
        self.waited = self.drawing = 0.0

    def batch(self, step: int, count: int, num_frames: int) -> Frames:
        """`count` parts of `num_frames` frames each, of as many clips if the pool has as many.

        Raises:
            UserError: If espeak-ng is not installed.
            ComputationError: If a process that draws was ended.
        """
        numbers = self._fill(step)
        rng = np.random.default_rng((self._seed, step))
        parts = []
        for number in rng.choice(numbers, count, replace=count > len(numbers)):
            clip = self._clip(int(number))
            start = rng.integers(len(clip.video) - num_frames + 1)
            parts.append((clip.video[start : start + num_frames], clip.mouths[start : start + num_frames]))
        return Frames(*(np.stack(values) for values in zip(*parts, strict=True)))

    def newest(self, step: int, count: int, num_frames: int) -> Iterable[UInt8[np.ndarray, "F H W 3"]]:
        """The first frames of the newest clips of a step's pool: at most `count`.

        Raises:
            UserError, ComputationError: As `batch`.
        """
        numbers = self._numbers(step)[-count:]
        self._submit(numbers)
        return (self._clip(number).video[:num_frames] for number in numbers)

    def _numbers(self, step: int) -> range:
        newest = FIRST + step // STEPS_PER_CLIP
        return range(max(0, newest - POOL), newest)

    def _fill(self, step: int) -> range:
        """The clips of a step's pool. Drops what is older, and begins to draw what is missing and what is needed soon."""
        numbers = self._numbers(step)
        self._pool = {number: drawn for number, drawn in self._pool.items() if number >= numbers.start}
        self._used = {number for number in self._used if number >= numbers.start}
        self._submit(range(numbers.start, numbers.stop + AHEAD))
        return numbers

    def _submit(self, numbers: range) -> None:
        with _broken():
            for number in numbers:
                if number not in self._pool:
                    self._pool[number] = self._workers.submit(_draw, self._clips, number)

    def _clip(self, number: int) -> _Drawn:
        began = time.perf_counter()
        with _broken():
            clip = self._pool[number].result()
        self.waited += time.perf_counter() - began
        if number not in self._used:
            self._used.add(number)
            self.drawing += clip.core_seconds
        return clip


def _draw(clips: DrawnClips, number: int) -> _Drawn:
    began = time.thread_time()
    clip = clips[number]
    return _Drawn(clip["video"], clip["mouth_boxes"][0], time.thread_time() - began)


@contextlib.contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise ComputationError(
            "a process that draws clips was ended (is there too little memory?): run the same command again to continue"
        ) from error
