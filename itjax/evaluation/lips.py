"""Lips: whether the mouth is shut in silence. How well it follows speech is `curves.sync` of its opening."""

import numpy as np
from jaxtyping import Bool, Num

# F frames

TRANSITION_FRAMES = 4  # that a mouth may take to close or to open


def open_in_silence(opening: Num[np.ndarray, " F"], speaking: Bool[np.ndarray, " F"]) -> float:
    """Mean opening in silence as a fraction of that in speech; NaN if the clip has no silence or no speech.

    Frames next to the start or end of speech are excluded, and those without a face (NaN).
    """
    known = np.isfinite(opening)
    silent, spoken = away_from_changes(~speaking) & known, away_from_changes(speaking) & known
    if not silent.any() or not spoken.any():
        return float("nan")
    return float(opening[silent].mean() / max(float(opening[spoken].mean()), 1e-9))


def away_from_changes(flags: Bool[np.ndarray, " F"]) -> Bool[np.ndarray, " F"]:
    """Frames for which the flag is also set in the TRANSITION_FRAMES on both sides."""
    unset_nearby = np.convolve(~flags, np.ones(2 * TRANSITION_FRAMES + 1, int), "same")
    return flags & (unset_nearby[: len(flags)] == 0)
