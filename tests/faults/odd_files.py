"""Files of odd kinds that people have, or make: pictures, videos, sound and JSON. Each function writes one."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image

RATE, SECONDS = 16_000, 1
RED, GREEN = (200, 30, 30), (30, 200, 30)


def _still(colour=RED, size=(80, 60), mode="RGB") -> Image.Image:
    return Image.new("RGB", size, colour).convert(mode)


def voice() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, RATE * SECONDS).astype(np.float32)


def animated(path: Path) -> None:
    """WebP, AVIF, APNG or GIF of a red and a green picture."""
    _still().save(path, save_all=True, append_images=[_still(GREEN)], duration=100)


def cmyk(path: Path) -> None:
    _still(mode="CMYK").save(path)


def palette_with_transparency(path: Path) -> None:
    _still().quantize().save(path, transparency=0)


def deep_colour(path: Path) -> None:
    """A PNG of 16 bits a colour, which PIL cannot write."""
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 80, 60, "rgb48be"
        frame = av.VideoFrame.from_ndarray(np.asarray(_still()), format="rgb24").reformat(format="rgb48be")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def line(path: Path) -> None:
    _still(size=(65535, 1)).save(path)


def video(path: Path, *, interlaced=False, uneven=False, cover=False, only_sound=False, codec="libx264") -> None:
    """A second of red that turns green in the middle."""
    with av.open(str(path), "w") as container:
        streams = []
        if not only_sound:
            stream = container.add_stream(codec, rate=25, options={"flags": "+ildct+ilme"} if interlaced else {})
            stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            streams.append(stream)
        if only_sound or cover:
            sound = container.add_stream("aac", rate=RATE)
            streams.append(sound)
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 16, 16, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
        if not only_sound:
            times = [0, 10, 50, 400, 500, 530, 990] if uneven else range(0, 1000, 40)
            for time in times:
                pixels = np.asarray(_still(RED if time < 500 else GREEN, (80, 64)))
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if only_sound or cover:
            frame = av.AudioFrame.from_ndarray(voice()[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        if cover:
            frame = av.VideoFrame.from_ndarray(np.asarray(_still((0, 0, 255), (16, 16))), format="rgb24")
            container.mux(picture.encode(frame))


def sound(path: Path, kind: str, subtype: str) -> None:
    """WAV, W64, RF64 and others, with samples of any kind."""
    soundfile.write(path, voice(), RATE, format=kind, subtype=subtype)


def wav(path: Path, data: bytes, *, claimed: int | None = None, bits=16, tag=1, channels=1, rate=RATE) -> None:
    """A WAV file with a header of one's own; `claimed`: the size of the samples that it tells of."""
    size = len(data) if claimed is None else claimed
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
    chunks = b"WAVE" + b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", min(2**32 - 1, 28 + 8 + size)) + chunks)
