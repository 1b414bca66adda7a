"""The mp4, made of fragments: pictures and AAC packets in, bytes to append out, one plain mp4 at the end. No state.

A fragment needs nothing of the ones before it but three counts, so a run goes on in another process as if never killed:
every chunk has an x264 encoder of its own and thus begins with an IDR picture, and equal settings give equal SPS/PPS.
"""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from jaxtyping import UInt8

from itjax.media.sound_track import PACKET, SoundTrack, encoder_settings

# n frames of a chunk · H W pixels

REORDER = 2  # x264 decodes a picture up to 2 places before it is shown (B pictures that others refer to)
THREADS = 4  # a fixed number: x264's bytes depend on it, and must not depend on the machine
X264 = {
    "preset": "medium",
    "crf": "17",
    "bf": "3",
    "b-pyramid": "normal",
    "mbtree": "0",  # with B pictures it reads memory that x264 never set: now and then a run would differ by a byte
    # Written into the stream, so that players undo the very matrix that `_yuv` applies.
    "colorspace": "bt709",
    "color_primaries": "bt709",
    "color_trc": "bt709",
    "color_range": "tv",
}
ENCODER = f"PyAV {av.__version__}"  # another x264 may write another SPS, which the first fragment's header would not fit


class Format(NamedTuple):
    """What all fragments of a video share."""

    height: int
    width: int
    fps: int
    sound: SoundTrack | None
    comment: str


class Counts(NamedTuple):
    """What lies before a fragment."""

    chunks: int = 0
    frames: int = 0
    packets: int = 0


def fragment(fmt: Format, before: Counts, frames: UInt8[np.ndarray, "n H W 3"], sound_packets: Sequence[bytes]) -> bytes:
    """The bytes to append for one chunk; those of the first chunk begin with the header (ftyp, moov) for all."""
    flags = "empty_moov+default_base_moof+delay_moov+skip_trailer" + ("+frag_discont" if before.chunks else "")
    options = {"movflags": flags, "fragment_index": str(before.chunks + 1), "fflags": "+bitexact"}
    out = io.BytesIO()  # a chunk's few megabytes; the disk sees ordinary writes of our own, whose errors we can tell
    with av.open(out, "w", format="mp4", options=options) as container:
        container.metadata["comment"] = fmt.comment
        video = container.add_stream("libx264", rate=fmt.fps, options=X264)
        video.width, video.height, video.pix_fmt = fmt.width, fmt.height, "yuv420p"
        video.codec_context.time_base = Fraction(1, fmt.fps)
        video.codec_context.thread_count = THREADS
        audio = container.add_stream("aac", **encoder_settings(fmt.sound)) if fmt.sound else None
        container.start_encoding()
        container.mux(_video_packets(video, fmt.fps, before.frames, frames))
        if audio:
            container.mux(_audio_packets(audio, before, sound_packets))
    data = out.getvalue()
    return data[_offset(data, b"moof") :] if before.chunks else data


def _video_packets(stream, fps: int, first: int, frames: UInt8[np.ndarray, "n H W 3"]) -> list[av.Packet]:
    """Encode one chunk into closed GOPs. Decode times run on over the chunks, even after one of a single picture."""
    packets = []
    for index, picture in enumerate(frames):
        frame = _yuv(picture)
        frame.pts, frame.time_base = first + index, Fraction(1, fps)
        packets += stream.encode(frame)
    packets += stream.encode(None)
    for index, packet in enumerate(packets):
        packet.dts, packet.duration = first + index - REORDER, 1
    return packets


def _audio_packets(stream, before: Counts, payloads: Sequence[bytes]) -> list[av.Packet]:
    """Wrap AAC payloads. Packet k is stamped (k-1)·1024: the priming packet lies before time 0 and is not heard."""
    # With frag_discont, libavformat takes the fragments before this one to have begun at 0, not at -1024: put it back.
    shift = PACKET if before.chunks else 0
    packets = []
    for index, payload in enumerate(payloads, before.packets):
        packet = av.Packet(payload)
        packet.stream, packet.time_base = stream, Fraction(1, stream.codec_context.sample_rate)
        packet.pts = packet.dts = (index - 1) * PACKET + shift
        packet.duration, packet.is_keyframe = PACKET, True
        packets.append(packet)
    return packets


def _yuv(picture: UInt8[np.ndarray, "H W 3"]) -> av.VideoFrame:
    """RGB to YUV 4:2:0 by the BT.709 matrix into the limited range; a chroma sample is the mean of its four pixels."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return frame.reformat(
        format="yuv420p",
        dst_colorspace="itu709",
        src_color_range="JPEG",
        dst_color_range="MPEG",
        interpolation="AREA",
    )


def _offset(data: bytes, box: bytes) -> int:
    """Where the first top-level box of this name begins."""
    at = 0
    while data[at + 4 : at + 8] != box:
        at += int.from_bytes(data[at : at + 4], "big")
    return at


def join(fragmented: Path, target: Path, comment: str) -> None:
    """Copy the packets, as they are, into a plain mp4 that has its index in front (faststart)."""
    options = {"movflags": "faststart", "fflags": "+bitexact"}
    with av.open(str(fragmented)) as source, av.open(str(target), "w", format="mp4", options=options) as whole:
        whole.metadata["comment"] = comment
        twins = {stream.index: whole.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:  # the demuxer ends each stream with an empty packet
                packet.stream = twins[packet.stream.index]
                whole.mux(packet)


def comment_of(file: Path) -> str:
    """The comment in a video's header, '' where there is no such file, comment or video."""
    try:
        with av.open(str(file)) as container:
            return container.metadata.get("comment", "")
    except (OSError, av.error.FFmpegError):
        return ""
