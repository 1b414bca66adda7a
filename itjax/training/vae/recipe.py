"""How a small VAE is trained. Without JAX, so that processes that draw need not load it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

DType: TypeAlias = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Recipe:
    """How the VAE is trained.

    Attributes:
        steps: Steps in total.
        image_steps: The first of them, on single pictures.
        images: Pictures per step.
        clips: Clips per step after that.
        clip_frames: Frames of each clip, 4n+1.
        mouth_weight: Weight of the pixels around a mouth, relative to 1 elsewhere; only in clips.
        learning_rate: Constant over pictures, then falling to zero along a cosine.
        warmup: Steps of linear warm-up, of pictures and of clips.
        average: Part of the moving average of the weights that a step keeps, at most; at first it is shorter.
        dtype: Of convolutions in training; weights and measurements are in float32.
    """

    steps: int
    image_steps: int = 600
    images: int = 16
    clips: int = 2
    clip_frames: int = 9
    mouth_weight: float = 25.0
    learning_rate: float = 1e-3
    warmup: int = 50
    average: float = 0.995
    dtype: DType = "float32"


RECIPE = Recipe(steps=6000)
# of a refinement, which has no pictures: more than a chunk's context of frames, and a lower rate, as it is trained already
REFINEMENT = Recipe(steps=1000, image_steps=0, clips=2, clip_frames=13, learning_rate=1e-4)
