"""Opens and checks the media files of a request."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from itjax.conditioning import persons
from itjax.conditioning.speech_features import FPS, frame_count
from itjax.config import SizeTable
from itjax.media import images, pictures, speech
from itjax.media.limits import COMMAND_LINE, Limits
from itjax.media.picture_sizes import choose_size
from itjax.pipeline.request import Request

END_TOLERANCE = 6  # frames: tracks whose ends differ by no more than this count as equally long, as in the official code


class Inputs(NamedTuple):
    """The request's media, opened and checked. `masks`: two persons and the background on the latent grid, or None."""

    request: Request
    source: pictures.ImageSource | pictures.VideoSource
    height: int
    width: int
    tracks: list[Float32[np.ndarray, " _"]]
    masks: Float32[np.ndarray, "G h w"] | None


def open_inputs(request: Request, table: SizeTable, limits: Limits = COMMAND_LINE) -> Inputs:
    """Opens the media files of a request; none may exceed `limits`.

    Raises:
        UserError: if a file is missing or unreadable, or boxes or masks are invalid.
    """
    source = pictures.open_source(request.source, limits)
    height, width = choose_size(*source.size, table)
    tracks = _padded_to_longest(speech.prepare_tracks(request.sounds, request.audio_type, limits))
    masks = None
    boxes, drawn = _by_name(request, request.boxes), _by_name(request, request.masks)
    drawn = None if drawn is None else [images.load_image(path, limits) for path in drawn]
    if len(tracks) == 2 or boxes is not None or drawn is not None:
        masks = persons.person_masks((height, width), source.size, boxes, len(tracks), drawn)
    return Inputs(request, source, height, width, tracks, masks if len(tracks) == 2 else None)


def _by_name(request: Request, given: Sequence[Any] | None) -> Sequence[Any] | None:
    """What is given of each person, in the order of the tracks: sorted by name. Another number is refused later."""
    if given is None or len(given) != len(request.sounds):
        return given
    return [entry for _, entry in sorted(zip(request.sounds, given, strict=True), key=lambda pair: pair[0])]


def _padded_to_longest(tracks: list[np.ndarray]) -> list[np.ndarray]:
    """Pads the shorter track with silence if the lengths clearly differ, so that nobody's speech is cut off.

    The official code generates chunks until the first person's track ends, and cuts the video to the last person's.
    """
    lengths = [frame_count(len(track)) for track in tracks]
    if max(lengths) - min(lengths) <= END_TOLERANCE:
        return tracks
    longest = max(map(len, tracks))
    seconds = " and ".join(f"{n / FPS:.2f} s" for n in lengths)
    warnings.warn(f"the persons' tracks last {seconds}: the shorter one is padded with silence", stacklevel=2)
    return [np.pad(track, (0, longest - len(track))) for track in tracks]
