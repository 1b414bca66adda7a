"""How large media may be. A file's header can claim anything; what it claims is compared with these before it is decoded."""

from dataclasses import dataclass

from itjax.errors import UserError
from itjax.input_files import PathLike, check_file


@dataclass(frozen=True)
class Limits:
    """The largest media that are read.

    Attributes:
        file_bytes: size of a file.
        pixels: width times height of an image or a video.
        seconds: length of an audio track.
        min_sample_rate: samples per second of an audio track. (A track is resampled to 16 kHz: at 1 Hz, each sample would
            become 16,000.)
        max_sample_rate: the same, at most.
        channels: number of channels of an audio track.
    """

    file_bytes: int = 2**40
    pixels: int = 200_000_000  # the largest cameras of phones
    seconds: float = 24 * 3600.0
    min_sample_rate: int = 4_000
    max_sample_rate: int = 768_000
    channels: int = 32


COMMAND_LINE = Limits()  # the user's own files
SERVER = Limits(file_bytes=200_000_000, pixels=50_000_000, seconds=600.0, max_sample_rate=192_000, channels=8)  # anyone's


def check_media_file(path: PathLike, what: str, limits: Limits) -> None:
    """Checks a file before it is opened; `what` is what error messages say was expected.

    Raises:
        UserError: as in `itjax.input_files.check_file`, or if the file is too large.
    """
    size = check_file(path, what)
    if size > limits.file_bytes:
        raise UserError(f"{path}: the file has {size:,} bytes; at most {limits.file_bytes:,} are read.")


def check_picture_size(path: PathLike, width: int, height: int, limits: Limits) -> None:
    """Checks the size of an image or video.

    Raises:
        UserError: if there are too many pixels, or none.
    """
    given = f"{path}: its size is given as {width}x{height}"
    if min(width, height) < 1:
        raise UserError(f"{given}: there is nothing in it.")
    if width * height > limits.pixels:
        raise UserError(f"{given}: that is more than {limits.pixels / 1e6:g} million pixels. Scale it down.")


def check_sound_format(path: PathLike, sample_rate: int, channels: int, limits: Limits) -> None:
    """Checks an audio track's sample rate and number of channels.

    Raises:
        UserError: if one of them is beyond the limits.
    """
    if not limits.min_sample_rate <= sample_rate <= limits.max_sample_rate:
        raise UserError(
            f"{path}: its header declares {sample_rate} audio samples per second; {limits.min_sample_rate} to "
            f"{limits.max_sample_rate} are read. Is it damaged? Else resample it."
        )
    if not 1 <= channels <= limits.channels:
        raise UserError(f"{path}: its audio has {channels} channels; at most {limits.channels} are read. Mix it down.")


def check_sound_length(path: PathLike, seconds: float, limits: Limits) -> None:
    """Checks an audio track's length.

    Raises:
        UserError: if it is too long.
    """
    if seconds > limits.seconds:
        raise UserError(f"{path}: its audio is longer than {limits.seconds / 60:g} minutes. Cut it into parts.")
