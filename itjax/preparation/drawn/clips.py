"""Which clips are drawn, and their drawing in processes of their own. Without JAX, which these need not load."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from itjax.conditioning.persons import LATENT_STRIDE, person_masks
from itjax.config import SizeTable
from itjax.errors import UserError
from itjax.media.speech import normalise_loudness
from itjax.synthetic import clip as clips
from itjax.synthetic import workers
from itjax.synthetic.source import DrawnClips, person_boxes

AHEAD = 32  # clips that are drawn before they are needed
RATIOS = {1: 1.0, 2: 0.5}  # height / width of a picture of one person, and of two


class DrawnClip(NamedTuple):
    """Clip `number` of a source, and its prompt."""

    source: DrawnClips
    number: int
    prompt: str

    @property
    def name(self) -> str:
        """Names the clip as `python -m itjax.synthetic` does, with the number of persons."""
        return f"drawn{self.source.seed:04d}-{self.number:05d}-p{self.source.persons}"


def drawn_clips(table: SizeTable, seed: int, seconds: float, counts: dict[int, int]) -> list[DrawnClip]:
    """All clips: `counts` of them by number of persons, in the sizes of the table.

    Raises:
        UserError: If the table has no picture size of the right shape.
    """
    chosen = []
    for persons, count in counts.items():
        if count and RATIOS[persons] not in table:
            raise UserError(f"the preset has no picture size whose height is {RATIOS[persons]:g} times its width")
        if count:
            height, width = table[RATIOS[persons]]
            source = DrawnClips(seed, count, seconds, (height, width), persons=persons)
            prompts = (clips.prompt((seed, number), seconds, height, width, persons) for number in range(count))
            chosen += [DrawnClip(source, number, prompt) for number, prompt in enumerate(prompts)]
    return chosen


class Inputs(NamedTuple):
    """What the networks are given of a clip (see `itjax.preparation.shards.LoadedClip`)."""

    pixels: UInt8[np.ndarray, "F H W 3"]
    tracks: list[Float32[np.ndarray, " _"]]
    masks: Float32[np.ndarray, "G h w"] | None
    region: Float32[np.ndarray, "F h w"]


def inputs_of(chosen: Sequence[DrawnClip]) -> Iterator[Inputs]:
    """Yields the inputs of the clips, in order, drawn ahead by processes.

    Raises:
        UserError: If espeak-ng is not installed.
    """
    waiting: deque[Future[Inputs]] = deque()
    with workers.processes() as pool:
        for drawn in chosen:
            waiting.append(pool.submit(draw, drawn))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def draw(drawn: DrawnClip) -> Inputs:
    """Draws a clip, and makes of it what would be read from files."""
    found, size = drawn.source[drawn.number], drawn.source.size
    tracks = [normalise_loudness(track) for track in (found["voices"] if drawn.source.persons > 1 else [found["sound"]])]
    masks = None
    if drawn.source.persons > 1:
        masks = person_masks(size, size, person_boxes(found["head_boxes"], *size), drawn.source.persons)
    return Inputs(found["video"], tracks, masks, latent_cells(found["region"]))


def latent_cells(region: Bool[np.ndarray, "F H W"]) -> Float32[np.ndarray, "F h w"]:
    """The share of each latent cell that is in the region."""
    frames, height, width = region.shape
    cells = region.reshape(frames, height // LATENT_STRIDE, LATENT_STRIDE, width // LATENT_STRIDE, LATENT_STRIDE)
    return cells.mean(axis=(2, 4), dtype=np.float32)
