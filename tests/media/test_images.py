"""Images that are damaged, deep, tiled or made to do harm: read right, or refused before they are decoded."""

import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, features

from itjax.errors import UserError
from itjax.media import images
from itjax.media.images import load_image
from itjax.media.limits import COMMAND_LINE, SERVER, Limits
from itjax.media.pictures import ImageSource, open_source

MEDIA = Path(__file__).parents[1] / "recordings/media"
RAMP = np.add.outer(np.arange(48), np.arange(64) * 3).astype(np.uint8)
GREY = np.repeat(RAMP[..., None], 3, axis=-1)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel; its content is missing."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# --- more than 8 bits, and tiles --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "mode"),
    [
        ("deep.png", RAMP.astype(np.uint16) * 257, "I;16"),
        ("deep.tiff", RAMP.astype(np.uint16) * 257, "I;16"),
        ("deep.pgm", RAMP.astype(np.uint16) * 257, "I;16"),
        ("deep.jp2", RAMP.astype(np.uint16) * 257, "I;16"),
        ("unit.tiff", RAMP.astype(np.float32) / 255, "F"),
        ("float.tiff", RAMP.astype(np.float32), "F"),
        ("int.tiff", RAMP.astype(np.int32), "I"),
    ],
)
def test_deep_grey_is_as_bright_as_in_8_bits(name, values, mode, tmp_path):
    image = Image.fromarray(values)
    assert image.mode == mode
    image.save(tmp_path / name, **({"irreversible": False} if name.endswith("jp2") else {}))
    np.testing.assert_array_equal(load_image(tmp_path / name), GREY)  # it was almost white


def test_negative_of_16_bits(tmp_path):
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / "a.tiff", tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tiff") as image:
        assert image.mode == "I;16" and image.tag_v2[262] == 0
    np.testing.assert_array_equal(load_image(tmp_path / "a.tiff"), 255 - GREY)


@pytest.mark.parametrize("values", [RAMP.astype(np.int32) * 70000, RAMP.astype(np.float32) * 9, RAMP * np.float32(np.nan)])
def test_numbers_that_are_no_brightness(values, tmp_path):
    Image.fromarray(values).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match=r"a\.tiff: its pixels are numbers from .*Save it with 8 or 16 bits"):
        load_image(tmp_path / "a.tiff")


@pytest.mark.parametrize("tile", [0, 128])
def test_heic_is_one_image(tile, tmp_path):
    ramp = np.repeat(np.add.outer(np.arange(192), np.arange(320)).astype(np.uint8)[..., None] // 2, 3, axis=-1)
    pillow_heif.from_pillow(Image.fromarray(ramp)).save(tmp_path / "a.heic", quality=95, grid_tile_size=tile)
    source = open_source(tmp_path / "a.heic")
    assert isinstance(source, ImageSource) and source.size == (192, 320)  # it was a video of its first tile
    assert np.abs(source.pixels.astype(int) - ramp).mean() < 3
    whole = (tmp_path / "a.heic").read_bytes()
    (tmp_path / "cut.heic").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.heic: the image is damaged"):
        open_source(tmp_path / "cut.heic")


@pytest.mark.skipif(not features.check("avif"), reason="PIL without AVIF")
def test_avif(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.avif", quality=95)
    assert np.abs(load_image(tmp_path / "a.avif").astype(int) - GREY).mean() < 3
    whole = (tmp_path / "a.avif").read_bytes()
    (tmp_path / "cut.avif").write_bytes(whole[:-200])
    with pytest.raises(UserError, match=r"cut\.avif: the image is damaged"):
        open_source(tmp_path / "cut.avif")


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", np.linspace(0.1, 0.99, 8))
def test_a_flipped_bit_of_a_png_is_noticed(place, tmp_path):
    data = bytearray((MEDIA / "face.png").read_bytes())
    data[int(place * len(data))] ^= 4
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.png: the image is damaged"):  # the picture was another one
        open_source(tmp_path / "a.png")


def test_a_png_with_a_flipped_bit_in_its_header_is_not_left_to_ffmpeg(tmp_path):
    data = bytearray((MEDIA / "face.png").read_bytes())
    data[18] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.png: the image is damaged"):
        open_source(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["jp2", "j2k"])
@pytest.mark.parametrize("share", [0.5, 0.97, 0.999])
def test_jpeg_2000_without_its_end(suffix, share, tmp_path):
    Image.open(MEDIA / "face.png").convert("RGB").save(tmp_path / f"a.{suffix}")
    assert load_image(tmp_path / f"a.{suffix}").shape == (97, 83, 3)
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=rf"a\.{suffix}: the image is damaged"):  # the decoder made up the rest
        load_image(tmp_path / f"a.{suffix}")


# --- bombs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("wide.png", png(20000, 20000), "more than 200 million pixels"),
        ("most.png", png(2**31 - 1, 2**31 - 1), "more than 200 million pixels"),
        (
            "large.gif",
            b"GIF89a" + struct.pack("<HHBBB", 60000, 60000, 0, 0, 0) + b"\x2c" + bytes(9) + b"\x08\x00;",
            "200 million pixels",
        ),
    ],
)
def test_bombs_are_refused_by_their_headers(name, content, reason, tmp_path, monkeypatch):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: its size is given as .*{reason}"):
        open_source(tmp_path / name)


def test_a_server_has_limits_of_its_own(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    size = (tmp_path / "a.png").stat().st_size
    for limits, reason in ((Limits(pixels=48 * 64 - 1), "more than"), (Limits(file_bytes=size - 1), f"has {size:,} bytes")):
        with pytest.raises(UserError, match=rf"a\.png: .*{reason}"):
            load_image(tmp_path / "a.png", limits)
    assert load_image(tmp_path / "a.png", Limits(pixels=48 * 64, file_bytes=size)).shape == GREY.shape
    assert all(getattr(SERVER, name) <= value for name, value in vars(COMMAND_LINE).items() if name != "min_sample_rate")


def test_pils_limit_is_the_same_before_and_after_images_opened_together(tmp_path, monkeypatch):
    limit = 1000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr(images, "BAND", 500)  # some versions of PIL compare parts of an image with the limit as well
    Image.fromarray(GREY).save(tmp_path / "a.png")
    seen = []

    def read():
        for _ in range(20):
            load_image(tmp_path / "a.png")
            seen.append(Image.MAX_IMAGE_PIXELS)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {limit}  # it was off for ever


def test_postscript_is_not_handed_to_another_program(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was called"))
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match=r"a\.png: cannot be read"):
        open_source(tmp_path / "a.png")
