"""The source: a picture or a video, as uint8 frames at 25 a second. Decides by content which of them a file is."""

import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.stream import Disposition
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from itjax.errors import UserError
from itjax.media.containers import FRAME_RATE, SLACK, PathLike, check_file, declared_seconds, open_media, start_delay
from itjax.media.picture_sizes import Size

FORWARD = 10  # seconds: decode on to a frame that is at most so far ahead, else go to the keyframe before it

Picture = UInt8[np.ndarray, "H W 3"]
PIL_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
)  # what its plugins raise on bad files


class ImageSource(NamedTuple):
    """A still picture: the same at all times."""

    pixels: Picture
    is_still: bool = True
    num_frames: int | None = None

    @property
    def size(self) -> Size:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def frame(self, i: int) -> Picture:
        """The picture, whichever frame is asked for."""
        return self.pixels


def open_source(path: PathLike) -> "ImageSource | VideoSource":
    """The picture or video in the file, whatever it is called. Of an animated picture (GIF) the first one.

    Raises:
        UserError: where the file is missing, damaged, or neither.
    """
    check_file(path, "a picture or a video")
    try:
        with _without_pixel_limit(), Image.open(path) as image:
            is_picture = image.format != "MPEG"  # which PIL knows by sight, but cannot read
    except PIL_ERRORS:
        is_picture = False
    return ImageSource(load_image(path)) if is_picture else VideoSource(path)


def load_image(path: PathLike) -> Picture:
    """The picture as RGB [H, W, 3], turned as its EXIF says; what is transparent shows the colour stored there.

    Raises:
        UserError: where the file is missing, damaged, or no picture.
    """
    check_file(path, "a picture")
    try:
        with _without_pixel_limit(), Image.open(path) as image:
            return np.array(_upright(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: not a picture that can be read. Save it as PNG or JPEG.") from error
    except PIL_ERRORS as error:
        raise UserError(f"{path}: the picture is damaged or cut off ({error}). Take a whole copy.") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except PIL_ERRORS:  # the EXIF is damaged: no reason to refuse the picture (a damaged picture raises again below)
        return image


@contextmanager
def _without_pixel_limit() -> Iterator[None]:
    """PIL refuses very large pictures, for fear of strangers' files; these are the user's own."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


class _Timed(NamedTuple):
    ticks: int  # when the frame is shown, in units of the stream's time base
    frame: Any  # av.VideoFrame


class VideoSource:
    """A video's frames by number, at 25 a second whatever its own rate: frame i is the one on show at i/25 s.

    Going up decodes on; going back, or far ahead, goes to the keyframe before: the pixels are the same. Two decoded
    frames are held, whatever the length. Time 0 is the first frame, or the file's start where the video starts late on
    purpose. Past the end the last frame stays. Damage further on costs a warning: the last good frame stays meanwhile,
    or to the end.

    Raises:
        UserError: where nothing can be decoded.
    """

    is_still = False
    _shown: _Timed
    _ahead: _Timed | None  # the one after, None at the end

    def __init__(self, path: PathLike):
        self._path = path
        self._warned: set[str] = set()
        # so far, frame by frame ahead of the one on show: what could not be decoded or was made up, and keyframes
        self.damaged, self.keyframes = 0, 0
        self._reopen()
        self._first = self._shown.ticks
        delay = start_delay(self._container, self._stream)
        self._zero = self._first - round(delay / self._tick)
        self._matrix = _display_matrix(self._shown.frame)
        self.size: Size = self._pixels(self._shown).shape[:2]

    @property
    def num_frames(self) -> int | None:
        """At 25 a second, as far as the header tells; None where it does not."""
        if self._stream.duration:
            seconds = self._stream.duration * Fraction(self._stream.time_base)
        elif self._container.duration:
            seconds = Fraction(self._container.duration, av.time_base)
        else:
            return None
        return max(1, math.ceil(seconds * FRAME_RATE - Fraction(1, 100)))  # headers round

    @property
    def at_end(self) -> bool:
        """Whether the frame on show is the last one that can be decoded."""
        return self._ahead is None

    def frame(self, i: int) -> Picture:
        """The last frame that begins at or before i/25 s (half a tick of tolerance); before them all, the first."""
        due = self._zero + int(Fraction(i, FRAME_RATE) / self._tick + Fraction(1, 2))
        back = due < self._shown.ticks and self._first < self._shown.ticks
        far = self._ahead is not None and due - self._ahead.ticks > FORWARD / self._tick
        if back or far:
            self._go_to(due)
        while self._ahead is not None and self._ahead.ticks <= due:
            self._shown, self._ahead = self._ahead, next(self._frames, None)
        return self._pixels(self._shown)

    def _reopen(self) -> None:
        """Back to the first frame, by opening the file anew: that works for every format."""
        self._container = open_media(self._path, "a picture or a video")
        covers = Disposition.attached_pic  # of a sound file
        streams: list[Any] = [s for s in self._container.streams.video if not s.disposition & covers]
        if not streams:
            raise UserError(f"{self._path}: the file has no pictures. Give a picture or a video.")
        self._stream = streams[0]
        self._counted = not _has_times(self._container, self._stream)
        rate = self._stream.average_rate or FRAME_RATE
        self._tick = 1 / Fraction(rate) if self._counted else Fraction(self._stream.time_base)
        if not self._start(self._decoded(after_seek=False)):
            raise UserError(
                f"{self._path}: nothing in it can be decoded. The file is damaged, cut off, or neither a picture nor a "
                "video."
            )

    def _start(self, frames: Iterator[_Timed]) -> bool:
        """Put the first of `frames` on show, if there is one."""
        first = next(frames, None)
        if first is not None:
            self._frames, self._shown, self._ahead = frames, first, next(frames, None)
        return first is not None

    def _go_to(self, due: int) -> None:
        """Put on show a frame that begins at or before `due`, or the first one; nearest keyframes are tried first.

        A container's index may lead to a keyframe that is shown later than asked for, or into a missing end.
        """
        back = 0
        while not self._counted and due - back > self._first:
            try:
                self._container.seek(due - back, stream=self._stream)
            except av.FFmpegError:
                break
            if self._start(self._decoded(after_seek=True)) and self._shown.ticks <= due:
                return
            back = 2 * back + int(1 / self._tick) + 1
        self._reopen()

    def _decoded(self, after_seek: bool) -> Iterator[_Timed]:
        """The frames from where the container stands, in the order of display.

        After a seek, frames shown before the keyframe are left out: in an open group of pictures they lean on frames
        that were not decoded.
        """
        keyframe, last, number = None, None, 0
        for packet in self._packets():
            if after_seek and keyframe is None:
                if not packet.is_keyframe or packet.pts is None:
                    continue
                keyframe = packet.pts
            for frame in self._frames_of(packet):
                ticks = number if self._counted else frame.pts
                number += 1
                if ticks is None or (keyframe is not None and ticks < keyframe):
                    continue
                last = _Timed(ticks, frame)
                yield last
        self._check_end(last)

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                self._warn("the file is damaged: the video ends there, and its last good frame stays")
                return
            if packet is None:
                return
            yield packet

    def _frames_of(self, packet: Any) -> list[Any]:
        try:
            if not packet.is_corrupt:
                frames = packet.decode()
                self.damaged += sum(frame.is_corrupt for frame in frames)  # the decoder made up what is missing
                self.keyframes += sum(frame.key_frame for frame in frames)
                return frames
        except av.FFmpegError:
            pass
        self.damaged += 1
        self._warn("damaged frames of the video are left out; the last good one stays meanwhile")
        return []

    def _check_end(self, last: _Timed | None) -> None:
        declared = declared_seconds(self._container, self._stream)
        if last is None or declared is None or self._counted:
            return
        end = (last.ticks - (self._stream.start_time or 0)) * self._tick + (last.frame.duration or 0) * self._tick
        if declared - end > SLACK:
            self._warn(f"the video is cut off at {float(end):.2f} s of {declared:.2f} s; its last good frame stays")

    def _warn(self, what: str) -> None:
        if what not in self._warned:
            warnings.warn(f"{self._path}: {what}", stacklevel=2)
        self._warned.add(what)

    def _pixels(self, timed: _Timed) -> Picture:
        return _turned(timed.frame.to_ndarray(format="rgb24"), self._matrix)


def _has_times(container: Any, stream: Any) -> bool:
    """Whether frames say when they are shown. Bare streams do not, nor AVI with reordered frames: those are counted."""
    reordered = container.format.name == "avi" and stream.codec_context.has_b_frames
    return stream.start_time is not None and not reordered


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    """The nine numbers a b u c d v x y w of the display matrix (how a phone was held), if the file has one."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else struct.unpack("=9i", bytes(data)[:36])


def _turned(image: Picture, matrix: tuple[int, ...] | None) -> UInt8[np.ndarray, "h w 3"]:
    """Quarter turns and mirrors: x' = a·x + c·y, y' = b·x + d·y."""
    if matrix is None:
        return image
    a, b, _, c, d = matrix[:5]
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, across, down = image.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])
