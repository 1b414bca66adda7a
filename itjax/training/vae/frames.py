"""Batches of drawn frames for the VAE: drawn in a thread while the devices compute. The step's number determines a batch."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from itjax.synthetic.source import DrawnClips

# B batch · F pixel frames · H W pixels

CLIPS, SECONDS = 12, 4.0  # of a block
STEPS_PER_BLOCK = 40
POOL = 3  # blocks from which batches are chosen: that of the step and those before it
ENDLESS = 10**9  # clips; each is drawn when its block comes


class Frames(NamedTuple):
    """Videos and where the mouths are in them."""

    video: UInt8[np.ndarray, "B F H W 3"]
    region: Bool[np.ndarray, "B F H W"]


class DrawnFrames:
    """Random parts of drawn training clips.

    Blocks of clips are drawn one ahead of the step, by one thread: OpenCV does not hold Python's lock while it draws.
    `waited`: seconds that `batch` waited for the drawing; `drawing`: processor seconds of the drawing.
    """

    def __init__(self, seed: int, size: int):
        self._seed, self._clips = seed, DrawnClips(seed, ENDLESS, SECONDS, (size, size))
        self._pool = ThreadPoolExecutor(1, "drawing")
        self._blocks: dict[int, Future[list[Frames]]] = {}
        self.waited = self.drawing = 0.0

    def batch(self, step: int, count: int, num_frames: int) -> Frames:
        """`count` different parts of `num_frames` frames each, of clips that are near in the stream of clips.

        Raises:
            UserError: If espeak-ng is not installed.
        """
        clips = self._clips_at(step // STEPS_PER_BLOCK)
        rng = np.random.default_rng((self._seed, step))
        parts = []
        for number in rng.choice(len(clips), count, replace=count > len(clips)):
            start = rng.integers(len(clips[number].video) - num_frames + 1)
            parts.append(Frames(*(values[start : start + num_frames] for values in clips[number])))
        return Frames(*(np.stack(values) for values in zip(*parts, strict=True)))

    def _clips_at(self, block: int) -> Sequence[Frames]:
        """The clips of the pool; drops what is no longer needed, and begins to draw what is next."""
        wanted = range(max(0, block - POOL + 1), block + 1)
        self._blocks = {number: future for number, future in self._blocks.items() if number >= wanted[0]}
        for number in (*wanted, block + 1):
            if number not in self._blocks:
                self._blocks[number] = self._pool.submit(self._draw, number)
        began = time.perf_counter()
        clips = [clip for number in wanted for clip in self._blocks[number].result()]
        self.waited += time.perf_counter() - began
        return clips

    def _draw(self, block: int) -> list[Frames]:
        began = time.thread_time()
        drawn = (self._clips[number] for number in range(block * CLIPS, (block + 1) * CLIPS))
        frames = [Frames(clip["video"], clip["region"]) for clip in drawn]
        self.drawing += time.thread_time() - began
        return frames

    def close(self) -> None:
        """Ends the drawing thread, after the clip block in hand."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> "DrawnFrames":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
