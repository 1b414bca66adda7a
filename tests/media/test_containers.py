"""What FFmpeg is given to open, and what it finds there that PyAV does not know."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from itjax.errors import UserError
from itjax.media.containers import open_media
from itjax.media.limits import Limits
from itjax.media.pictures import open_source

CLIP = Path(__file__).parents[1] / "recordings/runs/media/clip.mp4"


@pytest.mark.parametrize("suffix", ["mp4", "m3u8", "wav"])
@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile {clip}\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{clip}\n",  # without its end, it was read anew for ever
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ],
    ids=["ffconcat", "HLS", "SDP"],
)
def test_a_file_does_not_lead_to_other_files(text, suffix, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(CLIP.read_bytes())
    path = tmp_path / f"list.{suffix}"
    path.write_text(text.format(clip="clip.mp4"))
    with pytest.raises(UserError, match=rf"list\.{suffix}: cannot be read as audio"):
        open_media(path, "audio")


def test_numbers_in_a_name_are_no_pattern(tmp_path):
    for k in range(3):
        Image.new("RGB", (64, 48)).save(tmp_path / f"a{k}.png")
    with pytest.raises(UserError, match=r"a%d\.png: no such file"):
        open_media(tmp_path / "a%d.png", "an image")


def test_a_frame_with_side_data_that_pyav_does_not_know(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker"  # turned right
    jpeg = io.BytesIO()
    ramp = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)
    Image.fromarray(ramp).convert("RGB").save(jpeg, "JPEG", exif=exif)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        packet = av.Packet(jpeg.getvalue())
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, 25)
        container.mux(packet)
    frame = open_source(tmp_path / "a.avi").frame(0)  # ValueError: 31 is not a valid Type
    if frame.shape[:2] == (64, 48):  # FFmpeg from version 8 on knows EXIF
        assert np.abs(frame[..., 0].astype(int) - np.rot90(ramp, -1)).mean() < 5


@pytest.mark.parametrize("limits", [Limits(pixels=100), Limits(file_bytes=100)])
def test_videos_have_limits(limits):
    with pytest.raises(UserError, match=r"clip\.mp4: .*(million pixels|are read)"):
        open_source(CLIP, limits)


def test_a_codec_that_ffmpeg_does_not_know(tmp_path):
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
        container.mux(stream.encode(None))
    data = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(data.replace(b"FMP4", b"QQQQ").replace(b"mp4v", b"QQQQ"))
    with pytest.raises(UserError, match=r"a\.avi: .*(decode)"):
        open_source(tmp_path / "a.avi")
