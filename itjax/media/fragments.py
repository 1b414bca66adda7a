"""The fragmented mp4: frames and AAC packets in, bytes to append out, and finally one plain mp4. Stateless.

A fragment depends on the previous ones only through three counts, so a killed run can be continued exactly by another
process: every chunk has its own x264 encoder and so begins with an IDR frame, and equal settings give equal SPS/PPS.
"""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter
from jaxtyping import UInt8

from itjax.media.sound_track import PACKET, SoundTrack, encoder_settings

# n frames of a chunk · H W pixels

REORDER_DELAY = 2  # with x264, a frame is decoded up to 2 positions before it is shown (B-frames used as references)
ENCODER_THREADS = 4  # fixed: x264's output depends on the thread count, and must not depend on the machine
X264 = {
    "preset": "medium",
    "crf": "17",
    "bf": "3",
    "b-pyramid": "normal",
    "mbtree": "0",  # with B-frames, it reads uninitialised memory in x264, so that runs would sometimes differ by a byte
    # Written to the stream, so that players invert exactly the matrix that `_yuv` applies.
    "colorspace": "bt709",
    "color_primaries": "bt709",
    "color_trc": "bt709",
    "color_range": "tv",
}
ENCODER = f"PyAV {av.__version__}"  # another x264 version may use another SPS, which would not match the first header


class Format(NamedTuple):
    """Settings shared by all fragments of a video."""

    height: int
    width: int
    fps: int
    sound: SoundTrack | None
    comment: str


class Counts(NamedTuple):
    """Numbers of chunks, frames and AAC packets before a fragment."""

    chunks: int = 0
    frames: int = 0
    packets: int = 0


def fragment(fmt: Format, before: Counts, frames: UInt8[np.ndarray, "n H W 3"], sound_packets: Sequence[bytes]) -> bytes:
    """The bytes to append for one chunk; the first chunk also contains the header (ftyp, moov) for all."""
    flags = "empty_moov+default_base_moof+delay_moov+skip_trailer" + ("+frag_discont" if before.chunks else "")
    options = {"movflags": flags, "fragment_index": str(before.chunks + 1), "fflags": "+bitexact"}
    out = io.BytesIO()  # a few megabytes per chunk; our own writes to the disk then report errors precisely
    with av.open(out, "w", format="mp4", options=options) as container:
        container.metadata["comment"] = fmt.comment
        video = container.add_stream("libx264", rate=fmt.fps, options=X264)
        video.width, video.height, video.pix_fmt = fmt.width, fmt.height, "yuv420p"
        video.codec_context.time_base = Fraction(1, fmt.fps)
        video.codec_context.thread_count = ENCODER_THREADS
        audio = container.add_stream("aac", **encoder_settings(fmt.sound)) if fmt.sound else None
        container.start_encoding()
        container.mux(_video_packets(video, fmt.fps, before.frames, frames))
        if audio:
            container.mux(_audio_packets(audio, before, sound_packets))
    data = out.getvalue()
    return data[_offset(data, b"moof") :] if before.chunks else data


def _video_packets(stream, fps: int, first: int, frames: UInt8[np.ndarray, "n H W 3"]) -> list[av.Packet]:
    """Encodes one chunk into closed GOPs. Decode timestamps continue across chunks, even after a single-frame chunk."""
    packets, converter = [], VideoReformatter()  # one for all frames: making one takes longer than converting a small frame
    for index, pixels in enumerate(frames):
        frame = _yuv(converter, pixels)
        frame.pts, frame.time_base = first + index, Fraction(1, fps)
        packets += stream.encode(frame)
    packets += stream.encode(None)
    for index, packet in enumerate(packets):
        packet.dts, packet.duration = first + index - REORDER_DELAY, 1
    return packets


def _audio_packets(stream, before: Counts, payloads: Sequence[bytes]) -> list[av.Packet]:
    """Wraps AAC payloads. Packet k has the timestamp (k-1)·1024: the priming packet is before time 0 and not played."""
    # With frag_discont, libavformat assumes that the previous fragments began at 0, not at -1024: compensate for it.
    shift = PACKET if before.chunks else 0
    packets = []
    for index, payload in enumerate(payloads, before.packets):
        packet = av.Packet(payload)
        packet.stream, packet.time_base = stream, Fraction(1, stream.codec_context.sample_rate)
        packet.pts = packet.dts = (index - 1) * PACKET + shift
        packet.duration, packet.is_keyframe = PACKET, True
        packets.append(packet)
    return packets


def _yuv(converter: VideoReformatter, pixels: UInt8[np.ndarray, "H W 3"]) -> av.VideoFrame:
    """RGB to limited-range YUV 4:2:0 with the BT.709 matrix; a chroma sample is the mean of its four pixels."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return converter.reformat(
        frame,
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        src_color_range="JPEG",
        dst_color_range="MPEG",
        interpolation="AREA",
    )


def _offset(data: bytes, box: bytes) -> int:
    """Offset of the first top-level box with this name."""
    offset = 0
    while data[offset + 4 : offset + 8] != box:
        offset += int.from_bytes(data[offset : offset + 4], "big")
    return offset


def count(fragmented: Path, length: int) -> int:
    """Number of fragments in the first `length` bytes of a file; -1 if none ends there."""
    offset = fragments = 0
    with fragmented.open("rb") as file:
        while offset < length:
            file.seek(offset)
            header = file.read(8)
            size = int.from_bytes(header[:4], "big")
            if size < len(header) or len(header) < 8:
                return -1
            fragments += header[4:] == b"moof"
            offset += size
    return fragments if offset == length else -1


def defragment(fragmented: Path, target: Path, comment: str) -> None:
    """Copies the packets unchanged to a plain mp4 with the index at the front (faststart)."""
    options = {"movflags": "faststart", "fflags": "+bitexact"}
    paths = str(fragmented.absolute()), str(target.absolute())  # FFmpeg would take a name like 12:30.mp4 for a protocol
    with av.open(paths[0], format="mp4") as source, av.open(paths[1], "w", format="mp4", options=options) as whole:
        whole.metadata["comment"] = comment
        copies = {stream.index: whole.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:  # the demuxer ends each stream with an empty packet
                packet.stream = copies[packet.stream.index]
                whole.mux(packet)


def read_comment(file: Path) -> str:
    """The comment in a video's header; '' if there is no file, no comment, or no video."""
    try:
        with av.open(str(file.absolute()), format="mp4") as container:  # no playlists, which open other files
            return container.metadata.get("comment", "")
    except (OSError, ValueError, av.error.FFmpegError):  # ValueError: text that is not UTF-8
        return ""
