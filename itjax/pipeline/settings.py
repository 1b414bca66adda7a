"""What the user wants of a video, besides its inputs."""

from pathlib import Path
from typing import NamedTuple

from jax.typing import DTypeLike

from itjax.config import Sampler
from itjax.media.limits import COMMAND_LINE, Limits


class Settings(NamedTuple):
    """Output file and settings of a request.

    Attributes:
        save_file: Path of the video, with or without .mp4.
        sampler: Sampling settings.
        size: Name of one of the preset's tables of video sizes.
        max_frames: Maximum length of the video in frames.
        seed: Seed of the noise.
        dtype: Type of matrix products; None: bfloat16, on CPU float32.
        vae_dtype: The same for the VAE, whose errors the chunks hand on.
        silent_tail: Encode silence after the speech. Without it, the frames of the last chunk that lie beyond the end of the
            speech, which are cut off, hear its end backwards, as in the official code.
        branches_in_turn: Compute each layer for one guidance branch after another: slower, in less device memory.
        resume: Continue an unfinished run of the same `save_file`.
        noise: File with noise to use instead of the seed, e.g. from another implementation.
        save_frames: .npy file to which the frames are saved as well, as float32 in -1..1.
        limits: The largest media that are read: by default generous, for the user's own.
    """

    save_file: str | Path
    sampler: Sampler = Sampler()
    size: str = "infinitetalk-480"
    max_frames: int = 1000
    seed: int = 42
    dtype: DTypeLike | None = None
    vae_dtype: DTypeLike = "float32"
    silent_tail: bool = False
    branches_in_turn: bool = False
    resume: bool = False
    noise: Path | None = None
    save_frames: Path | None = None
    limits: Limits = COMMAND_LINE
