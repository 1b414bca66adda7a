"""Which chunks and reference frames of a clip are stored."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from itjax.errors import UserError

# n chunks · m references

SPEECH_MARGIN = 2  # frames of speech stored beyond each end of a clip: half the audio adapter's window


@dataclass(frozen=True)
class Layout:
    """The contents of a clip's records: its chunks and reference frames.

    A chunk of `frame_num` frames begins every `chunk_stride` frames, and every `reference_stride`-th frame can be a
    reference (including the first and last frame of each chunk). `ends`: also store the conditioning latents of FL2V;
    `regions`: also store the image regions in which the loss may have a larger weight.

    Raises:
        UserError: if `frame_num` is not 4n+1 and at least 5, or `reference_stride` does not divide both `chunk_stride` and
            `frame_num` - 1.
    """

    frame_num: int = 81
    reference_stride: int = 20
    chunk_stride: int = 40
    ends: bool = False
    regions: bool = False

    def __post_init__(self):
        if self.frame_num < 5 or self.frame_num % 4 != 1:
            raise UserError(f"--frame_num {self.frame_num}: must be 4n+1 and at least 5")
        if self.reference_stride < 1 or self.chunk_stride % self.reference_stride or self.chunk_stride < 1:
            raise UserError(f"--reference_stride {self.reference_stride} must divide --chunk_stride {self.chunk_stride}")
        if (self.frame_num - 1) % self.reference_stride:
            raise UserError(
                f"--reference_stride {self.reference_stride} must divide --frame_num - 1 = {self.frame_num - 1}, so that "
                "the last frame of a chunk can be a reference"
            )


def chunk_starts(num_frames: int, layout: Layout) -> Int32[np.ndarray, " n"]:
    """First frames of all chunks that fit in the clip."""
    return np.arange(0, num_frames - layout.frame_num + 1, layout.chunk_stride, dtype=np.int32)


def reference_frames(num_frames: int, layout: Layout) -> Int32[np.ndarray, " m"]:
    """All frames that can be a reference."""
    return np.arange(0, num_frames, layout.reference_stride, dtype=np.int32)
