"""Two persons: who moves when who speaks."""

import numpy as np
from jaxtyping import Bool, Float, Num

from itjax.evaluation.lips import away_from_changes

# P persons · F frames

WINDOW = 9  # frames over which a mouth's movement is averaged: about two syllables
LEAST_MOVEMENT = 0.2  # of the usual movement in speech: a silent mouth that moves less is taken to be at rest


def wrong_speaker(openings: Num[np.ndarray, "P F"], speaking: Bool[np.ndarray, "P F"]) -> float:
    """Movement of silent persons' mouths while another speaks, as a fraction of the movement of the speakers' mouths.

    0: only the speaker's mouth moves. 1: all mouths move alike. NaN if nobody is silent while another speaks.
    """
    movement = _movement(openings)
    anyone_speaks, known = speaking.any(0), np.isfinite(movement)
    speakers = np.stack([away_from_changes(person) for person in speaking]) & known
    silent = np.stack([away_from_changes(~person & anyone_speaks) for person in speaking]) & known
    if not speakers.any() or not silent.any():
        return float("nan")
    return float(movement[silent].mean() / max(float(movement[speakers].mean()), 1e-9))


def wrong_speaker_rate(openings: Num[np.ndarray, "P F"], speaking: Bool[np.ndarray, "P F"]) -> float:
    """Fraction of the frames with one speaker in which a silent person's mouth moves more than the speaker's.

    Movement is averaged over 9 frames, so that a pause between two syllables is not counted. A silent mouth that moves less
    than a fifth as much as is usual in speech counts as at rest. NaN if no frame has one speaker only.
    """
    movement = _movement(openings)
    kernel = np.ones(WINDOW)
    known = np.isfinite(movement)
    weights = np.stack([np.convolve(row, kernel, "same")[: len(row)] for row in known.astype(float)])
    sums = np.stack([np.convolve(row, kernel, "same")[: len(row)] for row in np.where(known, movement, 0.0)])
    smooth = np.where(known, sums / np.maximum(weights, 1), np.nan)
    alone = away_from_changes(speaking.sum(0) == 1) & known.all(0)
    # two persons who take turns without a pause: not at the change
    for person in speaking:
        alone &= away_from_changes(person) | away_from_changes(~person)
    if not alone.any():
        return float("nan")
    mouths, turn = smooth[:, alone], speaking[:, alone]
    speaker, others = np.where(turn, mouths, 0.0).max(0), np.where(turn, 0.0, mouths).max(0)
    usual = float(np.median(mouths.max(0)))
    return float(np.mean((others > speaker) & (others > LEAST_MOVEMENT * usual)))


def _movement(openings: Num[np.ndarray, "P F"]) -> Float[np.ndarray, "P F"]:
    return np.abs(np.diff(np.asarray(openings, np.float64), axis=1, prepend=openings[:, :1]))
