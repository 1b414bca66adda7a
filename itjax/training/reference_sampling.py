"""Draws a chunk's reference frame by the strategies of InfiniteTalk, section 3.4 (arXiv 2508.14033).

Pure arithmetic on frame numbers, from a clip's length and the layout of the chunks and references in its record.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from itjax.media.containers import FRAME_RATE
from itjax.records import Layout, chunk_starts, reference_frames
from itjax.training.config import References

# n chunks of a clip · m references of a clip · k allowed ones


class SampledPair(NamedTuple):
    """Indices of a chunk and a reference in the clip's record. `context`: whether the example has earlier frames."""

    chunk: int
    reference: int
    context: bool


def allowed_mask(
    references: References, starts: Int32[np.ndarray, " n"], frames: Int32[np.ndarray, " m"], frame_num: int
) -> Bool[np.ndarray, "n m"]:
    """Which frames are allowed as references of the chunks (of `frame_num` frames) at `starts`.

    For FL2V it is the chunk's first frame; the record has its latents together with the last frame as the chunk's `ends`.
    """
    first = starts[:, None]
    last = first + frame_num - 1
    # seconds between the frame and the nearest frame of the chunk, 0 inside it
    distance = np.maximum(np.maximum(first - frames, frames - last), 0) / FRAME_RATE
    match references.strategy:
        case "M0":
            return distance == 0
        case "M1":
            return (frames == first) | (frames == last)
        case "M2":
            return distance > references.far_seconds
        case "M3":
            return (distance > 0) & (distance <= references.near_seconds)
        case _:
            return frames == first


@cache  # called for every example, with few distinct lengths and starts
def allowed(references: References, start: int, num_frames: int, layout: Layout) -> Int32[np.ndarray, " k"]:
    """Indices (into `reference_frames`) of the allowed references of the chunk at frame `start` of a clip."""
    frames = reference_frames(num_frames, layout)
    return np.flatnonzero(allowed_mask(references, np.asarray([start], np.int32), frames, layout.frame_num)).astype(np.int32)


@cache
def usable_chunks(references: References, num_frames: int, layout: Layout) -> Int32[np.ndarray, " k"]:
    """Indices (into `chunk_starts`) of a clip's chunks that have an allowed reference."""
    mask = allowed_mask(references, chunk_starts(num_frames, layout), reference_frames(num_frames, layout), layout.frame_num)
    return np.flatnonzero(mask.any(axis=1)).astype(np.int32)


def draw(
    rng: np.random.Generator, references: References, num_frames: int, layout: Layout, context_dropout: float
) -> SampledPair:
    """Draws one of the clip's usable chunks, then one of its allowed references, both uniformly.

    With probability `context_dropout`, the example is like a first chunk: it has no earlier frames, its reference is its own
    first frame, and the latent of that frame is its only context. That is also the baselines' context of one frame.

    Raises:
        ValueError: If the clip has no usable chunk.
    """
    chunks = usable_chunks(references, num_frames, layout)
    if not len(chunks):
        raise ValueError(f"no chunk of a clip of {num_frames} frames has a reference for strategy {references.strategy}")
    chunk = int(chunks[rng.integers(len(chunks))])
    start = int(chunk_starts(num_frames, layout)[chunk])
    choices = allowed(references, start, num_frames, layout)
    # always drawn, so that the random stream does not depend on `context_dropout`
    reference = int(choices[rng.integers(len(choices))])
    if references.baseline:
        return SampledPair(chunk, reference, False)
    if rng.random() < context_dropout:
        own_first = int(np.flatnonzero(reference_frames(num_frames, layout) == start)[0])
        return SampledPair(chunk, own_first, False)
    return SampledPair(chunk, reference, True)
