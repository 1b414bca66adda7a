"""Finds a known drawn person's face in a video, and reads what it does, without knowing where it is."""

from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from itjax.evaluation import drawn_model, drawn_readings
from itjax.evaluation.drawn_factors import factors
from itjax.evaluation.drawn_model import HEAD, PersonModel
from itjax.evaluation.drawn_views import Place, cuts, identity_of, reduced
from itjax.evaluation.faces import FaceTrack

# F frames · H W pixels

__all__ = ["factors", "track"]

MISFIT = 4.0  # above this, a cut-out does not show the person
SEARCH = (0.0, -0.4, 0.4)  # halves of the head's height: where a lost head is looked for, around where it was
SEARCH_EVERY = 10  # frames


def track(frames: UInt8[np.ndarray, "F H W 3"], person: dict[str, Any]) -> FaceTrack:
    """Follows a person's head from its known place in the first frame.

    `person`: an entry of `people` in a clip's ground truth. Only its `identity` and its `seen` in the first frame are read.
    """
    small, start, scale = reduced(frames, person)
    who = identity_of(person)
    model = drawn_model.learn(who, small[0], start)
    places, heads, misfits = _follow(small, start, model)
    found = misfits < MISFIT
    values = np.full((len(frames), 8), np.nan)
    if found.any():
        roughly = model.steps[-1](heads[found])
        light = 1.0 if model.light(heads[found]).mean() > 0 else -1.0
        numbers = np.flatnonzero(found).tolist()
        read = drawn_readings.read(
            [small[n] for n in numbers], who, model.behind, [places[n] for n in numbers], roughly[:, 4:], light
        )
        values[found] = np.column_stack([np.array(read.places), read.angles, read.opening, read.brows])
    x, y, size, roll, yaw, pitch, opening, brows = values.T
    return FaceTrack(
        found,
        (np.stack([x, y], axis=1) + 0.5) / scale - 0.5,
        size / scale,
        np.stack([yaw, pitch, roll], axis=1),
        opening.clip(0),
        brows,
    )


def _follow(
    frames: list[UInt8[np.ndarray, "h w 3"]], start: Place, model: PersonModel
) -> tuple[list[Place], Float32[np.ndarray, "F D"], Float[np.ndarray, " F"]]:
    """The head's place in each frame, its cut-out there, and how unlike the person that is."""
    fits, last, lost = [], start, 0
    for frame in frames:
        fit = _settle(frame, last, model)
        if fit[2] >= MISFIT and lost % SEARCH_EVERY == 0:
            starts = [
                origin._replace(x=origin.x + dx * origin.size, y=origin.y + dy * origin.size)
                for origin in (last, start)
                for dx in SEARCH
                for dy in SEARCH
            ]
            fit = min((_settle(frame, near, model) for near in starts), key=lambda fit: fit[2])
        last, lost = (fit[0], 0) if fit[2] < MISFIT else (last, lost + 1)
        fits.append(fit)
    places, heads, misfits = zip(*fits, strict=True)
    return list(places), np.stack(heads), np.array(misfits)


def _settle(
    frame: UInt8[np.ndarray, "h w 3"], place: Place, model: PersonModel
) -> tuple[Place, Float32[np.ndarray, " D"], float]:
    """The place that is read from a guess, the cut-out there, and how unlike the person that is."""
    for step in model.steps:
        place = drawn_model.corrected(place, step(cuts([frame], [place], HEAD))[0])
    head = cuts([frame], [place], HEAD)
    return place, head[0], float(model.likeness.misfit(head)[0])
