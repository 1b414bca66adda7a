"""The media that a request names, opened and checked: everything that can be wrong with them is found here."""

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from itjax.conditioning import persons
from itjax.conditioning.speech_features import FPS, frame_count
from itjax.config import SizeTable
from itjax.media import pictures, speech
from itjax.media.picture_sizes import choose_size
from itjax.pipeline.request import Request

SAME_END = 6  # frames: tracks that end so near each other are taken to end together, as the official code does


class Inputs(NamedTuple):
    """The request's media, opened and checked. `masks`: persons and background on the latent grid, with two persons."""

    request: Request
    source: pictures.ImageSource | pictures.VideoSource
    height: int
    width: int
    tracks: list[Float32[np.ndarray, " _"]]
    masks: Float32[np.ndarray, "G h w"] | None


def open_inputs(request: Request, table: SizeTable) -> Inputs:
    """Opens the media that a request names.

    Raises:
        UserError: for anything that is not as it must be.
    """
    source = pictures.open_source(request.source)
    height, width = choose_size(*source.size, table)
    tracks = _same_end(speech.prepare_tracks(request.sounds, request.audio_type))
    masks = None
    images = None if request.masks is None else [pictures.load_image(path) for path in request.masks]
    if len(tracks) == 2 or request.boxes is not None or images is not None:
        masks = persons.person_masks((height, width), source.size, request.boxes, len(tracks), images)
    return Inputs(request, source, height, width, tracks, masks if len(tracks) == 2 else None)


def _same_end(tracks: list[np.ndarray]) -> list[np.ndarray]:
    """Tracks of clearly different length with silence after the shorter one: nobody's speech is cut off.

    The official code makes chunks until the first track ends and cuts the video to the last one.
    """
    lengths = [frame_count(len(track)) for track in tracks]
    if max(lengths) - min(lengths) <= SAME_END:
        return tracks
    longest = max(map(len, tracks))
    seconds = " and ".join(f"{n / FPS:.2f} s" for n in lengths)
    warnings.warn(f"the persons' tracks last {seconds}: the shorter one is silent after its end", stacklevel=2)
    return [np.pad(track, (0, longest - len(track))) for track in tracks]
