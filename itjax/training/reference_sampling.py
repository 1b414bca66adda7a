"""Which frame of a clip a chunk is shown as its reference: the strategies of InfiniteTalk, section 3.4 (arXiv 2508.14033).

Pure arithmetic on frame numbers: it knows a clip's length, and which chunks and references its record holds.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from itjax.media.containers import FRAME_RATE
from itjax.records import Layout, chunk_starts, reference_frames
from itjax.training.config import References

# n chunks of a clip · m references of a clip · k allowed


class Drawn(NamedTuple):
    """A chunk and a reference, by their place in the clip's record. `context`: whether earlier frames are given."""

    chunk: int
    reference: int
    context: bool


def allowed_mask(
    references: References, starts: Int32[np.ndarray, " n"], frames: Int32[np.ndarray, " m"], frame_num: int
) -> Bool[np.ndarray, "n m"]:
    """Which frames a chunk of `frame_num` frames that begins at each of `starts` may be shown.

    For FL2V it is the chunk's first frame: with its last one it is kept as the chunk's `ends`.
    """
    first = starts[:, None]
    last = first + frame_num - 1
    # seconds between the frame and the nearest of the chunk, 0 within it
    away = np.maximum(np.maximum(first - frames, frames - last), 0) / FRAME_RATE
    match references.strategy:
        case "M0":
            return away == 0
        case "M1":
            return (frames == first) | (frames == last)
        case "M2":
            return away > references.far_seconds
        case "M3":
            return (away > 0) & (away <= references.near_seconds)
        case _:
            return frames == first


@cache  # asked for with every example that is read, of few lengths and starts
def allowed(references: References, start: int, num_frames: int, layout: Layout) -> Int32[np.ndarray, " k"]:
    """Places (of `reference_frames`) of the references that the chunk at frame `start` of a clip may be shown."""
    frames = reference_frames(num_frames, layout)
    return np.flatnonzero(allowed_mask(references, np.asarray([start], np.int32), frames, layout.frame_num)).astype(np.int32)


@cache
def usable_chunks(references: References, num_frames: int, layout: Layout) -> Int32[np.ndarray, " k"]:
    """Places (of `chunk_starts`) of a clip's chunks that have a reference to be shown."""
    may = allowed_mask(references, chunk_starts(num_frames, layout), reference_frames(num_frames, layout), layout.frame_num)
    return np.flatnonzero(may.any(axis=1)).astype(np.int32)


def draw(rng: np.random.Generator, references: References, num_frames: int, layout: Layout, without_context: float) -> Drawn:
    """One of the clip's usable chunks, then one of its references, each equally likely.

    A share `without_context` of the examples is made as a first chunk is: nothing comes before them, and they are shown
    their own first frame, whose latent is all that they begin with. The baselines' one frame of context is that same
    frame.

    Raises:
        ValueError: where the clip has no usable chunk.
    """
    chunks = usable_chunks(references, num_frames, layout)
    if not len(chunks):
        raise ValueError(f"no chunk of a clip of {num_frames} frames has a reference by {references.strategy}")
    chunk = int(chunks[rng.integers(len(chunks))])
    start = int(chunk_starts(num_frames, layout)[chunk])
    choices = allowed(references, start, num_frames, layout)
    # drawn in any case, so that what follows does not depend on the share
    reference = int(choices[rng.integers(len(choices))])
    if references.baseline:
        return Drawn(chunk, reference, False)
    if rng.random() < without_context:
        own_first = int(np.flatnonzero(reference_frames(num_frames, layout) == start)[0])
        return Drawn(chunk, own_first, False)
    return Drawn(chunk, reference, True)
