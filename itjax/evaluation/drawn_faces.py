"""Finds a known drawn person's face in a video, and reads what it does, without knowing where it is."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from itjax.evaluation import drawn_model
from itjax.evaluation.drawn_factors import factors
from itjax.evaluation.drawn_model import BROWS, HEAD, MOUTH, PersonModel
from itjax.evaluation.drawn_views import Place, cut, identity_of, pixels, reduced
from itjax.evaluation.faces import FaceTrack

# F frames · H W pixels

MISFIT = 4.0  # above this, a cut-out does not show the person
SEARCH = (0.0, -0.4, 0.4)  # halves of the head's height: where a lost head is looked for, around where it was


def track(frames: UInt8[np.ndarray, "F H W 3"], person: dict[str, Any]) -> FaceTrack:
    """Follows a person's head from its known place in the first frame.

    `person`: an entry of `people` in a clip's ground truth. Only its `identity` and its `seen` in the first frame are read.
    """
    small, start, scale = reduced(frames, person)
    model = drawn_model.learn(identity_of(person), small[0], start)
    places, heads, misfits = _follow(small, start, model)
    found = misfits < MISFIT
    angles = model.steps[-1](heads)[:, 4:]
    mouths = pixels(
        [cut(f, place, MOUTH, drawn_model.mouth_shift(*a)) for f, place, a in zip(small, places, angles, strict=True)]
    )
    brows = pixels(
        [cut(f, place, BROWS, drawn_model.brows_shift(*a)) for f, place, a in zip(small, places, angles, strict=True)]
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


def _follow(frames, start: Place, model: PersonModel):
    places, heads, misfits = [], [], []
    last = start
    for frame in frames:
        place, head, misfit = _settle(frame, last, model)
        if misfit > MISFIT:
            starts = [
                origin._replace(x=origin.x + dx * origin.size, y=origin.y + dy * origin.size)
                for origin in (last, start)
                for dx in SEARCH
                for dy in SEARCH
            ]
            place, head, misfit = min((_settle(frame, near, model) for near in starts), key=lambda fit: fit[2])
        if misfit <= MISFIT:
            last = place
        places.append(place)
        heads.append(head)
        misfits.append(misfit)
    return places, np.stack(heads), np.array(misfits)


def _settle(frame, place: Place, model: PersonModel):
    for step in model.steps:
        place = drawn_model.corrected(place, step(pixels([cut(frame, place, HEAD)]))[0])
    head = pixels([cut(frame, place, HEAD)])
    return place, head[0], float(model.likeness.misfit(head)[0])
