"""Opens audio and video files: errors that name the file, the start time of streams, the declared duration."""

import re
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition

from itjax.errors import UserError
from itjax.input_files import PathLike
from itjax.media.limits import COMMAND_LINE, Limits, check_media_file

FRAME_RATE = 25  # frames per second of the video
SAMPLE_RATE = 16_000  # Hz, of the tracks for the speech encoder
# Encoders delay a stream's start by up to about 80 ms as a side effect (reordered frames, audio padding). A larger offset
# from the start of the file is treated as intentional.
MAX_ENCODER_DELAY = 0.1  # seconds
# A stream may be this much shorter than its header declares before it is considered truncated.
TRUNCATION_TOLERANCE = 0.5  # seconds
# Tags in an old encoding must not cause an error: PyAV replaces bad characters by default only from version 19 on.
_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}

# What FFmpeg may take a file for: containers of sound and video, and still images that PIL does not read. Not playlists
# (HLS, DASH, ffconcat, SDP), numbered images and SVG, which make it open other files or addresses, and not devices.
FORMATS = (
    "mov,mp4,matroska,webm,avi,asf,flv,mpegts,mpeg,mpegvideo,mxf,nut,ogg,rm,wtv,dv,ivf,gif,"
    "yuv4mpegpipe,swf,h261,h263,h264,hevc,vvc,m4v,av1,obu,vc1,mjpeg,cavsvideo,dirac,amv,3gp,mj2,"
    "wav,w64,aiff,au,caf,flac,mp3,aac,latm,loas,ac3,eac3,ac4,dts,dtshd,truehd,mlp,amr,amrnb,"
    "amrwb,ape,wv,tta,tak,dsf,iff,voc,sox,ircam,nistsphere,mpc,mpc8,shn,oma,qcp,gsm,opus,spx,aa,"
    "aax,xwma,exr_pipe,hdr_pipe,dpx_pipe,jpegxl_pipe,jpegxl_anim,jpegls_pipe,tiff_pipe,bmp_pipe,psd_pipe,"
    "pfm_pipe,phm_pipe,pam_pipe,pbm_pipe,pgm_pipe,ppm_pipe,qoi_pipe,sgi_pipe,dds_pipe,pcx_pipe,xwd_pipe,"
    "sunrast_pipe"
)
_OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}


def open_media(path: PathLike, what: str, limits: Limits = COMMAND_LINE) -> InputContainer:
    """Opens the file as a PyAV container; `what` is what error messages say was expected.

    Raises:
        UserError: as in `check_media_file`, or if FFmpeg's libraries cannot read the file.
    """
    check_media_file(path, what, limits)
    try:
        # absolute path: a name such as "12:30.mp4" would be interpreted as a protocol
        container = av.open(str(Path(path).absolute()), options=_OPTIONS, **_TAGS)
    except av.error.ArgumentError as error:
        raise UserError(_unreadable(path, what, "its format is not among those that are read")) from error
    except (av.FFmpegError, ValueError) as error:
        raise UserError(_unreadable(path, what, getattr(error, "strerror", None) or type(error).__name__)) from error
    if not container.streams:
        raise UserError(_unreadable(path, what, "it contains no streams"))
    return container


def sound_stream(path: PathLike, container: InputContainer) -> Any:
    """The audio stream that players play: the first one marked as default, or else the first one.

    Raises:
        UserError: if there is none, or FFmpeg's libraries cannot decode it.
    """
    streams: list[Any] = list(container.streams.audio)
    if not streams:
        raise UserError(f"{path}: the file has no audio track. Provide an audio file or a video with audio.")
    stream = next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])
    if stream.codec_context is None:
        raise UserError(f"{path}: FFmpeg cannot decode this kind of audio. Convert it to WAV.")
    return stream


def start_delay(container: InputContainer, stream: Any) -> float:
    """Seconds from the start of the file to the start of `stream`; 0 if this is just an encoder's delay."""
    if stream.start_time is None or stream.time_base is None or container.start_time is None:
        return 0.0
    delay = float(stream.start_time * stream.time_base) - container.start_time / av.time_base
    return delay if delay > MAX_ENCODER_DELAY else 0.0


def declared_seconds(container: InputContainer, stream: Any) -> float | None:
    """Duration of the stream in seconds if the header states it, else None (FFmpeg would only estimate it)."""
    if "mp4" in container.format.name:
        return float(stream.duration * stream.time_base) if stream.duration else None
    if "matroska" in container.format.name:
        tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
        return sum(float(part) * unit for part, unit in zip(tag.groups(), (3600, 60, 1), strict=True)) if tag else None
    return None


def _unreadable(path: PathLike, what: str, reason: str) -> str:
    return (
        f"{path}: cannot be read as {what} ({reason}). The file is damaged, cut off, or of another type; "
        "play it to check, or convert it with ffmpeg."
    )
