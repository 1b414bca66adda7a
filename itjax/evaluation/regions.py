"""Where the speakers are in the picture, so that the rest can be compared with the source and shows the camera's motion."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from itjax.evaluation.faces import FaceTrack

# F frames · H W pixels

# extents from the face's centre in units of half the head's height
HEAD_WIDTH, HEAD_TOP, NECK, SHOULDERS = 1.45, 1.4, 1.1, 2.1


def speakers(tracks: Sequence[FaceTrack], frames: int, size: tuple[int, int]) -> Bool[np.ndarray, "F H W"]:
    """True at the speakers: their heads with the hair, and all below their shoulders.

    Where a face is not found, its position in the nearest earlier frame counts, or in the next one.
    """
    height, width = size
    inside = np.zeros((frames, height, width), bool)
    for track in tracks:
        known = np.flatnonzero(np.isfinite(track.size) & np.isfinite(track.center).all(1))
        if not len(known):
            continue
        for number in range(frames):
            nearest = known[max(0, int(np.searchsorted(known, number, side="right")) - 1)]
            (x, y), half = track.center[nearest], track.size[nearest]
            for top, across in ((y - HEAD_TOP * half, HEAD_WIDTH * half), (y + NECK * half, SHOULDERS * half)):
                rows = slice(_pixel(top, height), height)
                inside[number, rows, _pixel(x - across, width) : _pixel(x + across + 1, width)] = True
    return inside


def _pixel(value: float, size: int) -> int:
    return int(np.clip(value, 0, size))
