"""Reads videos piece by piece, so that only a piece is in memory, however long they are; their chunk borders."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from itjax.errors import UserError
from itjax.media.companions import REGION_VIDEO_SUFFIX
from itjax.media.containers import FRAME_RATE, open_media
from itjax.media.fragments import read_comment
from itjax.media.pictures import ImageSource, open_source
from itjax.media.resize import resize_and_crop

# n frames of a piece · H W pixels

VIDEO_SUFFIXES = (".mp4", ".mov", ".webm", ".mkv", ".avi")
SOURCE_SUFFIXES = (*VIDEO_SUFFIXES, ".png", ".jpg", ".jpeg", ".webp")
PIECE_BYTES = 48 * 2**20  # bytes of a piece of frames
PIECE_FRAMES = 250
GENERATED = re.compile(r"itjax (unfinished )?[0-9a-f]{32}")  # the comment in a file that infer.py wrote


def videos_in(folder: Path) -> list[Path]:
    """The videos of a folder by name, without region files; or the one that `folder` is.

    Raises:
        UserError: If there is none.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Give a folder of videos.")
    named = [path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES]
    paths = sorted(path for path in named if not path.name.endswith(REGION_VIDEO_SUFFIX))
    if not paths:
        raise UserError(f"{folder}: no video in this folder ({', '.join(VIDEO_SUFFIXES)}).")
    return paths


def companion(folder: Path, stem: str, suffixes: tuple[str, ...]) -> Path:
    """The file `stem` with one of the suffixes in a folder.

    Raises:
        UserError: If there is none.
    """
    for suffix in suffixes:
        path = folder / f"{stem}{suffix}"
        if path.is_file():
            return path
    # without the name, which the caller tells: the same of many videos is then said once
    raise UserError(f"{folder}: there is no file of the same name ({', '.join(suffixes)}) in this folder.")


class FrameReader:
    """Reads a video, or a picture as a video that stands still, frame by frame in order.

    `size` (height, width): frames are scaled and cropped to it as `infer.py` does with its source.

    Raises:
        UserError: If it cannot be read.
    """

    def __init__(self, path: Path, size: tuple[int, int] | None = None):
        self._source = open_source(path)
        self._next = 0
        self._size = size if size and size != tuple(self._source.size) else None

    @property
    def is_still(self) -> bool:
        """Whether it is a picture."""
        return isinstance(self._source, ImageSource)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of the frames."""
        height, width = self._size or self._source.size
        return height, width

    @property
    def piece_frames(self) -> int:
        """Number of frames to read at a time."""
        height, width = self.size
        return max(4, min(PIECE_FRAMES, PIECE_BYTES // (3 * height * width)))

    def read(self, frames: int) -> UInt8[np.ndarray, "n H W 3"]:
        """The next frames, fewer at the end; a picture has no end."""
        read: list[np.ndarray] = []
        while len(read) < frames and not self._ended():
            picture = self._source.frame(self._next)
            read.append(picture if self._size is None else resize_and_crop(picture, self._size))
            self._next += 1
        return np.stack(read) if read else np.zeros((0, *self.size, 3), np.uint8)

    def _ended(self) -> bool:
        return not isinstance(self._source, ImageSource) and self._next > 0 and self._source.at_end


def borders_in(path: Path) -> list[int]:
    """The first new frames of the chunks of a video that infer.py wrote: each chunk begins with a keyframe.

    Empty for other videos. (A cut inside of a chunk gets a keyframe, too, and counts as a border.)
    """
    if not GENERATED.fullmatch(read_comment(path)):
        return []
    with open_media(path, "a video") as container:
        stream = container.streams.video[0]
        times = [packet.pts for packet in container.demux(stream) if packet.is_keyframe and packet.pts is not None]
        tick = float(stream.time_base or 0)
    return sorted({number for time in times if (number := round((time - min(times)) * tick * FRAME_RATE)) > 0})
