"""The frames and the speech of each chunk: the arithmetic of the official loop, without arrays."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from itjax.config import Sampler

# P persons · F frames per chunk · W window · N layers of the speech encoder · C its width


@runtime_checkable
class Features(Protocol):
    """Speech features of one person, readable by frame range (`itjax.conditioning.speech_features.SpeechFeatures`)."""

    num_frames: int

    def window(self, start: int, stop: int) -> Float[np.ndarray, "F N C"]:
        """The features of frames start..stop-1."""


class ChunkPlan(NamedTuple):
    """Chunk `number` covers frames start .. start + F - 1; `kept` selects those that are appended to the video."""

    number: int
    start: int
    is_last: bool
    kept: slice


def total_frames(num_frames: Sequence[int], sampler: Sampler, max_frames: int) -> int:
    """Frames of the video: the minimum of the last person's track, the limit, and the chunks of the first person's track."""
    generated, step = sampler.frame_num, sampler.new_frames
    limit = min(max_frames, num_frames[0])
    if max_frames > sampler.frame_num:  # beyond one chunk, chunks are added until the first person's track ends
        generated += step * max(0, -(-(limit - generated) // step))
    return max(1, min(generated, max_frames, num_frames[-1]))


def plan(num_frames: Sequence[int], sampler: Sampler, max_frames: int) -> list[ChunkPlan]:
    """The chunks of a video for speech tracks of `num_frames` frames each.

    A chunk is the last if it reaches the end of the first track (or the limit). The first chunk is the last only if it
    extends beyond that end: the official code does not check the first chunk's end.
    """
    total = total_frames(num_frames, sampler, max_frames)
    chunks, done, number = [], 0, 0
    while done < total:
        start = number * sampler.new_frames
        end = start + sampler.frame_num
        limit = min(max_frames, num_frames[0])
        is_last = end >= limit if number else end > limit
        skip = sampler.motion_frames if number else 0
        kept = slice(skip, min(sampler.frame_num, total - start))
        chunks.append(ChunkPlan(number, start, is_last, kept))
        done = start + kept.stop
        number += 1
    return chunks


def window_indices(chunk: ChunkPlan, num_frames: int, frame_num: int, window: int) -> Int[np.ndarray, "F W"]:
    """Indices of the track's frames around each frame of a chunk.

    Before its start, the track is padded with its first frame. Beyond its end, it is padded with its last frame, but in the
    last chunk it is mirrored (the official code appends the last features, flipped).
    """
    half = window // 2
    indices = chunk.start + np.arange(frame_num)[:, None] + np.arange(-half, half + 1)
    if chunk.is_last:
        indices = np.where(indices < num_frames, indices, 2 * num_frames - 1 - indices)
    return indices.clip(0, num_frames - 1)


def speech_windows(
    chunk: ChunkPlan, features: Sequence[Features], frame_num: int, window: int
) -> Float[np.ndarray, "P F W N C"]:
    """The speech features around each frame of a chunk, per person."""
    parts = []
    for track in features:
        indices = window_indices(chunk, track.num_frames, frame_num, window)
        first = int(indices.min())
        parts.append(track.window(first, int(indices.max()) + 1)[indices - first])
    return np.stack(parts)
