"""The truth of a drawn clip (NAME.json, as `python -m itjax.synthetic` writes it): speech, faces and camera as curves."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from itjax.errors import UserError
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
        camera = {name: np.asarray(content["camera"][name], np.float64) for name in ("pan_x", "pan_y", "zoom")}
        zoom, (x, y) = camera["zoom"], (camera[name] - camera[name][0] for name in ("pan_x", "pan_y"))
        moved = np.stack([x * zoom, y * zoom, np.log(zoom / zoom[0])], axis=1)
        tracks = [_track(person) for person in content["people"]]
        if not tracks or any(len(curve) != frames for curve in (moved, *(track.center for track in tracks))):
            raise ValueError("the curves are not as long as num_frames")
        return Truth(frames, (int(height), int(width)), content["people"], tracks, moved)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
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


def _track(person: dict[str, Any]) -> FaceTrack:
    boxes = np.asarray(person["seen"]["head_box"], np.float64)  # left, top, right, bottom
    jaw = np.asarray(person["mouth"]["jaw"], np.float64)
    pose = np.stack([np.asarray(person["pose"][name], np.float64) for name in ("yaw", "pitch", "roll")], axis=1)
    brows = np.asarray(person["look"]["brows"], np.float64)
    center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 3] - boxes[:, 1]) / 2
    return FaceTrack(np.ones(len(jaw), bool), center, size, pose, jaw, brows)
