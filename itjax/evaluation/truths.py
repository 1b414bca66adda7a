"""The truth of a drawn clip (NAME.json, as `python -m itjax.synthetic` writes it): speech, faces and camera as curves."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from itjax.errors import UserError
from itjax.evaluation.drawn_views import PLACES, identity_of
from itjax.evaluation.faces import FaceTrack
from itjax.input_files import read_json
from itjax.media.containers import FRAME_RATE

# F frames of the truth


class Truth(NamedTuple):
    """A clip's truth. `people` are the entries of the JSON, from which detectors of drawn faces take the colours."""

    num_frames: int
    size: tuple[int, int]  # height, width
    people: list[dict[str, Any]]
    tracks: list[FaceTrack]  # opening: the jaw, 0..1; brows: -1..1
    camera: Float[np.ndarray, "F 3"]  # position (x, y) in picture heights and log zoom, from the first frame


def read_truth(path: Path) -> Truth:
    """Reads the truth of a clip.

    Raises:
        UserError: If the file cannot be read or is not such a truth.
    """
    content = read_json(path)
    try:
        frames, (height, width) = int(content["num_frames"]), content["size"]
        tracks = [_track(person, frames) for person in content["people"]]
        if not tracks:
            raise ValueError("there are no people")
        for person in content["people"]:  # what is read of them later
            identity_of(person)
            speaking(person, frames)
        return Truth(frames, (int(height), int(width)), content["people"], tracks, _camera(content["camera"], frames))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path} is not the truth of a drawn clip ({type(error).__name__}: {error}). "
            "Give the folder `truth` that python -m itjax.synthetic wrote."
        ) from error


def check_fits(truth: Truth, size: tuple[int, int], path: Path, video: Path) -> None:
    """Checks that a truth belongs to a video of this size (height, width).

    Raises:
        UserError: If it does not.
    """
    if truth.size != size:
        (height, width), (true_height, true_width) = size, truth.size
        raise UserError(
            f"{path} does not fit {video}: the video is {width}x{height}, its truth is of {true_width}x{true_height}. "
            "Give the truth of this video."
        )


def speaking(person: dict[str, Any], num_frames: int) -> Bool[np.ndarray, " F"]:
    """Frames in which the person speaks."""
    spoken = np.zeros(num_frames, bool)
    for symbol, start, stop in person["phonemes"]:
        if symbol:
            spoken[int(start * FRAME_RATE) : int(np.ceil(stop * FRAME_RATE))] = True
    return spoken


def _camera(camera: dict[str, Any], frames: int) -> Float[np.ndarray, "F 3"]:
    x, y, zoom = (_values(camera, name, frames) for name in ("pan_x", "pan_y", "zoom"))
    if zoom.min() <= 0:
        raise ValueError(f"zoom is {zoom.min():g} in a frame, but must be above 0")
    return np.stack([(x - x[0]) * zoom, (y - y[0]) * zoom, np.log(zoom / zoom[0])], axis=1)


def _track(person: dict[str, Any], frames: int) -> FaceTrack:
    boxes = {name: _values(person["seen"], name, frames, count) for name, count in PLACES.items()}["head_box"]
    jaw, brows = _values(person["mouth"], "jaw", frames), _values(person["look"], "brows", frames)
    pose = np.stack([_values(person["pose"], name, frames) for name in ("yaw", "pitch", "roll")], axis=1)
    center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 3] - boxes[:, 1]) / 2
    if size.min() <= 0:
        raise ValueError("head_box has a frame in which the bottom is not below the top")
    return FaceTrack(np.ones(frames, bool), center, size, pose, jaw, brows)


def _values(content: dict[str, Any], name: str, *shape: int) -> Float[np.ndarray, "..."]:
    """The numbers `content[name]`; JSON's null becomes NaN, and is refused."""
    values = np.asarray(content[name], np.float64)
    if values.shape != shape:
        raise ValueError(f"{name} has the shape {values.shape}, but must have {shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has values that are no numbers")
    return values
