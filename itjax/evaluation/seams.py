"""Breaks in time: steps at chunk borders, frozen frames, flashes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

# F frames

BORDER_WINDOW = 12  # frames on each side of a border that define the usual step there
NOISE = 0.05  # levels of 255: a smaller mean difference between frames is no motion
STILL = 0.05  # of the video's large steps: a smaller step is no motion either, but what encoding leaves of it
FLASH_FRAMES = 5  # frames after which a change of brightness counts as one that stays
FLASH_LEVELS = 3.0  # levels of 255: smaller flashes are not noticed


def seams(step: Float[np.ndarray, " F"], borders: Sequence[int]) -> list[float]:
    """For each border (index of a chunk's first new frame), the step into it as a multiple of the usual step nearby.

    `step`: mean absolute difference from the previous frame; the usual step is the median within 12 frames, without
    borders. 1: no seam. Steps below `NOISE` count as `NOISE`: beside a picture that stands still, no border is infinitely
    worse than another.

    Raises:
        ValueError: If a border is outside the video.
    """
    if outside := [border for border in borders if not 0 < border < len(step)]:
        raise ValueError(f"border {outside[0]} is not inside a video of {len(step)} frames")
    found = []
    for border in borders:
        nearby = [
            step[i]
            for i in range(max(1, border - BORDER_WINDOW), min(len(step), border + BORDER_WINDOW))
            if i not in borders
        ]
        usual = float(np.median(nearby)) if nearby else 0.0
        found.append(max(float(step[border]), NOISE) / max(usual, NOISE))
    return found


def frozen(step: Float[np.ndarray, " F"], moving: Bool[np.ndarray, " F"]) -> float:
    """Fraction of the frames in `moving` (the source moves, or there is sound) that equal the previous one within noise.

    NaN if nothing should move.
    """
    if len(step) < 2 or not moving[1:].any():
        return float("nan")
    return float(still(step)[1:][moving[1:]].mean())


def still(step: Float[np.ndarray, " F"]) -> Bool[np.ndarray, " F"]:
    """Frames that equal the previous one within noise."""
    large = float(np.quantile(step[1:], 0.9)) if len(step) > 1 else 0.0
    return step <= max(NOISE, STILL * large)


def flashes(brightness: Float[np.ndarray, " F"]) -> list[float]:
    """Sizes in levels of 255 of brightness changes that return within 5 frames; those below 3 levels are omitted.

    A flash of w frames differs from both neighbours by its size, and the neighbours differ from each other by less than half
    of it. Of overlapping ones the largest counts.
    """
    candidates = []
    for width in range(1, min(FLASH_FRAMES, len(brightness) - 2) + 1):
        for start in range(1, len(brightness) - width):
            before, after, during = brightness[start - 1], brightness[start + width], brightness[start : start + width]
            for sign in (1, -1):
                size = float((sign * (during - before)).min().clip(max=(sign * (during - after)).min()))
                if size >= FLASH_LEVELS and abs(after - before) < size / 2:
                    candidates.append((size, start, start + width))
    kept: list[tuple[float, int, int]] = []
    for size, start, stop in sorted(candidates, key=lambda each: (-each[0], each[2] - each[1])):
        if all(stop < other_start or start > other_stop for _, other_start, other_stop in kept):
            kept.append((size, start, stop))
    return [size for size, _, _ in sorted(kept, key=lambda each: each[1])]
