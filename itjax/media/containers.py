"""Opening sound and video files: errors that name the file, where time zero lies, how long a file says it is."""

import os
import re
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from itjax.errors import UserError

PathLike = str | os.PathLike[str]

FRAME_RATE = 25  # frames a second, of the video
SAMPLE_RATE = 16_000  # Hz, of the tracks that the speech encoder hears
# Encoders delay a stream's start by up to some 80 ms (reordered frames, padding of the sound) without meaning it. A
# stream that starts later than this after its file is meant to.
MEANT_DELAY = 0.1  # seconds
# How much shorter than its header says a stream may be before we call it cut off.
SLACK = 0.5  # seconds
# Tags in an old encoding are no obstacle: PyAV takes them so from 19 on, and has to be told before.
_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def check_file(path: PathLike, what: str) -> None:
    """Checks that a file can be read; `what` says in the error what was expected.

    Raises:
        UserError: where `path` is missing, a folder, empty or not ours to read.
    """
    file = Path(path)
    if not file.exists():
        raise UserError(f"{path}: no such file. It should be {what}.")
    if not file.is_file():
        raise UserError(f"{path}: this is a folder or a device, not a file. It should be {what}.")
    if not os.access(file, os.R_OK):
        raise UserError(f"{path}: no permission to read this file.")
    if file.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty. It should be {what}.")


def open_media(path: PathLike, what: str) -> InputContainer:
    """The file as a PyAV container; `what` says in the error what was expected.

    Raises:
        UserError: where `check_file` does, or FFmpeg's libraries cannot make sense of the file.
    """
    check_file(path, what)
    try:
        # absolute: a name such as "12:30.mp4" would be taken for a protocol
        container = av.open(str(Path(path).absolute()), **_TAGS)
    except (av.FFmpegError, ValueError) as error:
        raise UserError(_unreadable(path, what, getattr(error, "strerror", None) or type(error).__name__)) from error
    if not container.streams:
        raise UserError(_unreadable(path, what, "there is nothing in it"))
    return container


def start_delay(container: InputContainer, stream: Any) -> float:
    """Seconds by which `stream` starts after its file; 0 where that is no more than an encoder's delay."""
    if stream.start_time is None or stream.time_base is None or container.start_time is None:
        return 0.0
    delay = float(stream.start_time * stream.time_base) - container.start_time / av.time_base
    return delay if delay > MEANT_DELAY else 0.0


def declared_seconds(container: InputContainer, stream: Any) -> float | None:
    """How long the header says the stream is, or None. Only formats that state it: for others FFmpeg estimates."""
    if "mp4" in container.format.name:
        return float(stream.duration * stream.time_base) if stream.duration else None
    if "matroska" in container.format.name:
        tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
        return sum(float(part) * unit for part, unit in zip(tag.groups(), (3600, 60, 1), strict=True)) if tag else None
    return None


def _unreadable(path: PathLike, what: str, reason: str) -> str:
    return (
        f"{path}: cannot be read as {what} ({reason}). The file is damaged, cut off, or something else; "
        "play it through to see, or convert it with ffmpeg."
    )
