"""Still images as RGB, of all formats that people have photos in. Damaged images and those of excessive size are refused."""

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from pillow_heif import HeifImageFile

from itjax.errors import UserError
from itjax.input_files import PathLike
from itjax.media.limits import COMMAND_LINE, Limits, check_media_file, check_picture_size

Picture = UInt8[np.ndarray, "H W 3"]
# What its plugins raise for bad files
PIL_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError,
    AssertionError, MemoryError, struct.error, zlib.error,
)  # fmt: skip

# In the order in which they are tried; what none of them takes is left to FFmpeg. PIL knows more formats, but EPS would be
# handed to another program (Ghostscript), and most others are of no use here.
FORMATS = (
    "PNG", "JPEG", "AVIF", "HEIF", "WEBP", "GIF", "TIFF", "JPEG2000", "BMP", "PPM", "PSD", "QOI", "SGI", "PCX", "DDS", "ICO",
    "TGA",
)  # fmt: skip
# If these cannot be opened, the file is damaged. FFmpeg must not try: it takes the tiles of HEIF for videos, and does not
# notice damage in the others.
ONLY_PIL = ("PNG", "JPEG", "AVIF", "HEIF", "WEBP", "GIF", "JPEG2000")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
BAND = 1 << 22  # pixels converted at a time
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF


def load_image(path: PathLike, limits: Limits = COMMAND_LINE) -> Picture:
    """The image as RGB [H, W, 3], rotated according to EXIF; transparent pixels show their stored colour.

    Raises:
        UserError: if the file is missing, damaged, not an image, or beyond the limits.
    """
    image = read_image(path, limits)
    if image is None:
        raise UserError(f"{path}: not a readable image. Save it as PNG or JPEG.")
    return image


def read_image(path: PathLike, limits: Limits = COMMAND_LINE) -> Picture | None:
    """As `load_image`, but None if the file is not an image, or is one that only FFmpeg might be able to read.

    Raises:
        UserError: if the file is missing, damaged, or beyond the limits.
    """
    check_media_file(path, "an image", limits)
    with Path(path).open("rb") as file:
        with _plugin_errors(path):
            image = _opened(file)
        if image is None:
            return None
        check_picture_size(path, image.width, image.height, limits)
        with _plugin_errors(path):
            if image.format == "PNG":
                image.verify()  # its checksums, which loading ignores; the image is closed by it
                image = _opened(file)
            if image.format == "JPEG2000" and not _is_whole_jpeg2000(file):
                raise EOFError("its end is missing")
            image.load()
            _turn_upright(image)
            return _to_rgb(path, image)


@contextmanager
def _plugin_errors(path: PathLike) -> Iterator[None]:
    try:
        yield
    except Image.DecompressionBombError as error:  # PIL's own limit, where a part of a file has a size of its own
        raise UserError(f"{path}: the image is too large ({error}). Scale it down.") from error
    except PIL_ERRORS as error:
        raise UserError(f"{path}: the image is damaged or cut off ({error}). Use an intact copy.") from error


def _opened(file: BinaryIO) -> Any:
    """The image (only its header is read), or None if it is none of `FORMATS`.

    Instead of `Image.open`, which compares with a limit of pixels that belongs to the whole process. Raises one of
    PIL_ERRORS if the file is damaged.
    """
    Image.init()
    readers: dict[str, tuple[Any, Any]] = {**Image.OPEN, "HEIF": (HeifImageFile, _is_heif)}
    file.seek(0)
    start = file.read(16)
    failure: Exception | None = None
    for name in FORMATS:
        if name not in readers:
            continue
        factory, accepts = readers[name]
        accepted = accepts is None or accepts(start)
        if isinstance(accepted, str):  # why this PIL cannot read it
            failure = SyntaxError(accepted)
        elif accepted:
            file.seek(0)
            try:
                return factory(file, "")
            except PIL_ERRORS as error:
                failure = error if name in ONLY_PIL else failure
    if failure is not None:
        raise failure
    return None


def _is_heif(start: bytes) -> bool:
    return start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS


def _is_whole_jpeg2000(file: BinaryIO) -> bool:
    """Whether the code ends with its end mark: the decoder makes up what is missing, and does not tell."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(2) == b"\xff\x4f":  # the code alone
        file.seek(max(0, size - 1024))
        return file.read().rstrip(b"\0").endswith(b"\xff\xd9")
    start = 0
    while start + 8 <= size:  # boxes; the code is in one of them
        file.seek(start)
        length, kind, long_length = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        length = {0: size - start, 1: long_length}.get(length, length)
        if kind == b"jp2c":
            file.seek(max(0, start + length - 2))
            return file.read(2) == b"\xff\xd9"
        start += max(8, length)
    return False


def _turn_upright(image: Image.Image) -> None:
    # damaged EXIF data is no reason to reject the image
    with contextlib.suppress(*PIL_ERRORS):
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(path: PathLike, image: Image.Image) -> Picture:
    """PIL converts grey of more than 8 bits by clipping at 255, so that almost everything becomes white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG")):  # 16 bits, widened by PIL
        return _grey_to_rgb(_deep_grey(image))
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= 255):  # or NaN
            raise UserError(f"{path}: its pixels are numbers from {low:g} to {high:g}. Save it with 8 or 16 bits.")
        scale = 255 if image.mode == "F" and high <= 1 else 1
        return _grey_to_rgb((values * scale + (0.5 if scale > 1 else 0)).astype(np.uint8))
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, BAND // width)
    for top in range(0, height, rows):  # so that a large image is not held once more
        band = image.crop((0, top, width, min(height, top + rows)))
        pixels[top : top + rows] = np.asarray(band.convert("RGB"))
    return pixels


def _deep_grey(image: Image.Image) -> UInt8[np.ndarray, "H W"]:
    """The upper 8 of 16 bits, as PIL does it in colour."""
    grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
    is_negative = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO
    return 255 - grey if is_negative else grey


def _grey_to_rgb(grey: UInt8[np.ndarray, "H W"]) -> Picture:
    return np.repeat(grey[..., None], 3, axis=-1)
