"""How much audio the headers of the files that libsndfile reads declare. It reads what exists, and does not complain."""

import re
from pathlib import Path

import soundfile

from itjax.input_files import PathLike

# WAV, AIFF and AU: libsndfile reports a difference in its log
SIZES = re.compile(r"^\s*(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_SIZE = 0x7FFF0000  # bytes, or more: written by programs that do not know the length in advance
# The first frame of most MP3s: zeros instead of sound, then flags, and the number of frames if the lowest of them is set.
# (There may be a checksum of two bytes before the zeros.)
FIRST_FRAME = re.compile(rb"\xff[\xe2-\xff].{4}\0{7,30}(?:Xing|Info).{3}[\x01\x03\x05\x07\x09\x0b\x0d\x0f]", re.DOTALL)
FIRST_FRAME_WITHIN = 4096  # bytes after the tags: a frame has at most 1441


def declared_seconds(path: PathLike, file: soundfile.SoundFile, read: int) -> float | None:
    """Duration of the audio according to the header, in seconds; None if it does not state one that can be missing.

    Args:
        path: the file.
        file: the same, opened.
        read: number of samples per channel that were read from it.
    """
    if file.format == "MP3":
        return file.frames / file.samplerate if _states_frames(path) else None
    sizes = SIZES.search(file.extra_info)
    declared, actual = map(int, sizes.groups()) if sizes else (0, 0)
    if actual == 0 or declared >= UNKNOWN_SIZE:
        return None
    return read / file.samplerate * declared / actual


def _states_frames(path: PathLike) -> bool:
    """Whether an MP3 states its number of frames.

    If not, libsndfile estimates it from the size of the file, tags included: a whole file with a cover would seem cut off.
    """
    with Path(path).open("rb") as file:
        tags = file.read(10)  # ID3v2: its size without these bytes, 7 bits in each of 4
        if tags.startswith(b"ID3"):
            file.seek(sum(byte << shift for byte, shift in zip(tags[6:], (21, 14, 7, 0), strict=True)), 1)
        else:
            file.seek(0)
        return FIRST_FRAME.search(file.read(FIRST_FRAME_WITHIN)) is not None
