"""Finds a known drawn person's face in a video, and reads what it does, without knowing where it is."""

from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from itjax.evaluation import drawn_model
from itjax.evaluation.drawn_factors import factors
from itjax.evaluation.drawn_model import BROWS, HEAD, MOUTH, PersonModel
from itjax.evaluation.drawn_views import Place, cut, identity_of, pixels, reduced
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
    model = drawn_model.learn(identity_of(person), small[0], start)
    places, heads, misfits = _follow(small, start, model)
    found = misfits < MISFIT
    angles = model.steps[-1](heads)[:, 4:]
    turned = angles.tolist()
    mouths = pixels(
        [cut(f, place, MOUTH, drawn_model.mouth_shift(*a)) for f, place, a in zip(small, places, turned, strict=True)]
    )
    brows = pixels(
        [cut(f, place, BROWS, drawn_model.brows_shift(*a)) for f, place, a in zip(small, places, turned, strict=True)]
    )
    opening = model.mouth(drawn_model.with_inside(mouths, model.around))[:, 0]
    where = np.array(places)
    unless_lost = lambda values: np.where(found.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan)
    return FaceTrack(
        found,
        unless_lost((where[:, :2] + 0.5) / scale - 0.5),
        unless_lost(where[:, 2] / scale),
        unless_lost(np.concatenate([angles, where[:, 3:]], axis=1)),
        unless_lost(opening.clip(0)),
        unless_lost(model.brows(brows)[:, 0]),
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
        place = drawn_model.corrected(place, step(pixels([cut(frame, place, HEAD)]))[0])
    head = pixels([cut(frame, place, HEAD)])
    return place, head[0], float(model.likeness.misfit(head)[0])
