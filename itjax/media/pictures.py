"""The source: an image or a video, as uint8 frames at 25 fps. The content determines which of them a file is."""

import math
import struct
import warnings
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorTrc, VideoReformatter
from jaxtyping import UInt8

from itjax.errors import UserError
from itjax.input_files import PathLike
from itjax.media.containers import (
    FRAME_RATE,
    TRUNCATION_TOLERANCE,
    declared_seconds,
    open_media,
    start_delay,
)
from itjax.media.images import Picture, read_image
from itjax.media.limits import COMMAND_LINE, Limits, check_media_file, check_picture_size
from itjax.media.picture_sizes import Size

FORWARD = 10  # seconds: to reach a frame at most this far ahead, keep decoding; beyond, seek to the keyframe before it
# Encoders that rounded a video's size write the rest as a ratio such as 1280:1281: nobody sees it, and scaling would blur.
NEARLY_SQUARE = Fraction(1, 100)
HDR = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}  # transfer functions
TO_SDR = (
    "ffmpeg -i IN -vf zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv420p -c:a copy OUT.mp4"
)
ROTATIONS = {  # counter-clockwise, in degrees -> display matrix
    90: (0, -1, 0, 1, 0, 0, 0, 0, 0),
    180: (-1, 0, 0, 0, -1, 0, 0, 0, 0),
    270: (0, 1, 0, -1, 0, 0, 0, 0, 0),
}


class ImageSource(NamedTuple):
    """A still image: every frame is the same."""

    pixels: Picture
    is_still: bool = True
    num_frames: int | None = None

    @property
    def size(self) -> Size:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def frame(self, i: int) -> Picture:
        """The image, for any frame number."""
        return self.pixels


def open_source(path: PathLike, limits: Limits = COMMAND_LINE) -> "ImageSource | VideoSource":
    """Opens an image or a video, regardless of the file name. For an animated image (GIF), only the first frame is used.

    Raises:
        UserError: if the file is missing, damaged, neither an image nor a video, or beyond the limits.
    """
    check_media_file(path, "an image or a video", limits)
    image = read_image(path, limits)
    return VideoSource(path, limits) if image is None else ImageSource(image)


class _Timed(NamedTuple):
    ticks: int  # presentation time, in units of the stream's time base
    frame: Any  # av.VideoFrame


class VideoSource:
    """A video's frames by number, at 25 fps regardless of its own rate: frame i is the one shown at i/25 s.

    Moving forward continues decoding; moving back or far ahead seeks to the preceding keyframe, with identical pixels. Only
    two decoded frames are kept, for any length. Time 0 is the first frame, or the start of the file if the video starts
    late on purpose. After the end, the last frame repeats. Damage after the first frame causes a warning, and the last good
    frame repeats until decoding recovers or the video ends. Pixels that are not square are made square by scaling the width.

    Raises:
        UserError: if nothing can be decoded, or the limits are exceeded.
    """

    is_still = False
    _current: _Timed
    _next: _Timed | None  # the next one, None at the end

    def __init__(self, path: PathLike, limits: Limits = COMMAND_LINE):
        self._path, self._limits = path, limits
        self._warned: set[str] = set()
        self._converter = VideoReformatter()  # one for all frames: making one takes longer than a small frame's conversion
        # counts up to the frame after the current one: frames that were not decoded or were concealed, and keyframes
        self.damaged, self.keyframes = 0, 0
        self._reopen()
        self._first = self._current.ticks
        delay = start_delay(self._container, self._stream)
        self._zero = self._first - round(delay / self._tick)
        self._pixel_ratio = _pixel_ratio(self._stream)
        self._matrix = _display_matrix(self._current.frame)
        self.size: Size = self._pixels(self._current).shape[:2]
        if (curve := HDR.get(self._current.frame.color_trc)) is not None:
            self._warn(f"the video is HDR ({curve}): its colours look washed out. Convert it to SDR first: {TO_SDR}")

    @property
    def num_frames(self) -> int | None:
        """Number of frames at 25 fps according to the header; None if the header does not state the duration."""
        if self._stream.duration:
            seconds = self._stream.duration * Fraction(self._stream.time_base)
        elif self._container.duration:
            seconds = Fraction(self._container.duration, av.time_base)
        else:
            return None
        return max(1, math.ceil(seconds * FRAME_RATE - Fraction(1, 100)))  # durations in headers are rounded

    @property
    def at_end(self) -> bool:
        """Whether the current frame is the last one that can be decoded."""
        return self._next is None

    def frame(self, i: int) -> Picture:
        """The last frame that starts at or before i/25 s (with half a tick of tolerance), or else the first frame."""
        target = self._zero + int(Fraction(i, FRAME_RATE) / self._tick + Fraction(1, 2))
        back = target < self._current.ticks and self._first < self._current.ticks
        far = self._next is not None and target - self._next.ticks > FORWARD / self._tick
        if back or far:
            self._seek(target)
        while self._next is not None and self._next.ticks <= target:
            self._current, self._next = self._next, next(self._frames, None)
        return self._pixels(self._current)

    def _reopen(self) -> None:
        """Returns to the first frame by reopening the file, which works for every format."""
        self._container = open_media(self._path, "an image or a video", self._limits)
        covers = Disposition.attached_pic  # cover art of an audio file
        streams: list[Any] = [s for s in self._container.streams.video if not s.disposition & covers]
        if not streams:
            raise UserError(f"{self._path}: the file contains no images. Provide an image or a video.")
        self._stream = streams[0]
        if self._stream.codec_context is None:
            raise UserError(f"{self._path}: FFmpeg cannot decode this kind of video. Convert it to H.264.")
        check_picture_size(self._path, self._stream.width or 1, self._stream.height or 1, self._limits)  # 0: not known yet
        self._counted = not _has_times(self._container, self._stream)
        rate = self._stream.average_rate or FRAME_RATE
        self._tick = 1 / Fraction(rate) if self._counted else Fraction(self._stream.time_base)
        if not self._start(self._decoded(after_seek=False)):
            raise UserError(
                f"{self._path}: nothing in it can be decoded. The file is damaged, cut off, or neither an image nor a video."
            )

    def _start(self, frames: Iterator[_Timed]) -> bool:
        """Makes the first of `frames` the current frame, if there is one."""
        first = next(frames, None)
        if first is not None:
            self._frames, self._current, self._next = frames, first, next(frames, None)
        return first is not None

    def _seek(self, target: int) -> None:
        """Moves to a frame that starts at or before `target`, or to the first one; nearest keyframes are tried first.

        A container's index may lead to a keyframe that is shown later than requested, or to a missing end of the file.
        """
        back = 0
        while not self._counted and target - back > self._first:
            try:
                self._container.seek(target - back, stream=self._stream)
            except av.FFmpegError:
                break
            if self._start(self._decoded(after_seek=True)) and self._current.ticks <= target:
                return
            back = 2 * back + int(1 / self._tick) + 1
        self._reopen()

    def _decoded(self, after_seek: bool) -> Iterator[_Timed]:
        """The frames from the container's current position, in display order.

        After a seek, frames shown before the keyframe are skipped: in an open GOP they refer to frames that were not
        decoded.
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
                self._warn("the file is damaged: the video ends at the damage, and its last good frame repeats")
                return
            if packet is None:
                return
            yield packet

    def _frames_of(self, packet: Any) -> list[Any]:
        try:
            if not packet.is_corrupt:
                frames = packet.decode()
                self.damaged += sum(frame.is_corrupt for frame in frames)  # the decoder concealed missing data
                self.keyframes += sum(frame.key_frame for frame in frames)
                return frames
        except av.FFmpegError:
            pass
        self.damaged += 1
        self._warn("damaged frames of the video are skipped; the last good one is repeated instead")
        return []

    def _check_end(self, last: _Timed | None) -> None:
        declared = declared_seconds(self._container, self._stream)
        if last is None or declared is None or self._counted:
            return
        end = (last.ticks - (self._stream.start_time or 0)) * self._tick + (last.frame.duration or 0) * self._tick
        if declared - end > TRUNCATION_TOLERANCE:
            self._warn(f"the video is cut off at {float(end):.2f} s of {declared:.2f} s; its last good frame repeats")

    def _warn(self, what: str) -> None:
        if what not in self._warned:
            warnings.warn(f"{self._path}: {what}", stacklevel=2)
        self._warned.add(what)

    def _pixels(self, timed: _Timed) -> Picture:
        frame = timed.frame
        width = max(1, round(frame.width * self._pixel_ratio))
        check_picture_size(self._path, width, frame.height, self._limits)  # it may change in a video
        return _oriented(self._converter.reformat(frame, width=width, format="rgb24").to_ndarray(), self._matrix)


def _has_times(container: Any, stream: Any) -> bool:
    """Whether frames have presentation times. Raw streams and AVI with reordered frames do not: their frames are counted."""
    reordered = container.format.name == "avi" and stream.codec_context.has_b_frames
    return stream.start_time is not None and not reordered


def _pixel_ratio(stream: Any) -> Fraction:
    """Width of a pixel divided by its height, such as 16/11 on DVDs; 1 if the file does not state it."""
    ratio = Fraction(stream.sample_aspect_ratio or 1)
    return ratio if abs(ratio - 1) > NEARLY_SQUARE else Fraction(1)


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    """The nine numbers a b u c d v x y w of the display matrix (a phone's orientation), if the file has one."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # there is side data of a kind that PyAV does not know, which hides the rest
        return ROTATIONS.get(frame.rotation % 360)
    return None if data is None else struct.unpack("=9i", bytes(data)[:36])


def _oriented(image: Picture, matrix: tuple[int, ...] | None) -> UInt8[np.ndarray, "h w 3"]:
    """Applies rotations by 90° and reflections: x' = a·x + c·y, y' = b·x + d·y."""
    if matrix is None:
        return image
    a, b, _, c, d = matrix[:5]
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, across, down = image.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])
