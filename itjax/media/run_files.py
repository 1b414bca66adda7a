"""The files of a run: where they go, whether they can be written; the .npy of float frames, valid after each chunk."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from itjax.errors import UserError
from itjax.media import journal

# n frames of a chunk · H W pixels

HEADER = 128  # bytes of an .npy header that has room for any number of frames


class Files(NamedTuple):
    """All that a run writes: the video, the folder of its journal, and where asked for the float frames."""

    video: Path
    folder: Path
    array: Path | None


def place(save_file: str | Path, save_frames: str | Path | None) -> Files:
    """Where everything goes.

    Raises:
        UserError: before the hours of work, for places that cannot be written.
    """
    video = _with_ending(save_file, ".mp4")
    array = _with_ending(save_frames, ".npy") if save_frames else None
    files = Files(video, video.with_suffix(".resume"), array)
    try:
        files.folder.mkdir(exist_ok=True)
        for file in (video, array):
            if file:
                journal.partial_file(file).touch()  # asks the disk itself: permission bits do not tell of a read-only one
                journal.partial_file(file).unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            files.folder.rmdir()
        raise UserError(f"{error.filename} cannot be written: {error.strerror}.") from error
    return files


def _with_ending(given: str | Path, ending: str) -> Path:
    file = Path(given)
    if file.is_dir():
        raise UserError(f"{file} is a folder; give the name of a file in it.")
    if file.suffix.lower() != ending:
        file = file.with_name(file.name + ending)
    if file.is_dir():
        raise UserError(f"{file} is a folder; give another name.")
    if not file.parent.is_dir():
        raise UserError(f"The folder {file.parent} does not exist. Create it, or give another place for {file.name}.")
    return file


def lock(files: Files) -> int:
    """Hold the run's folder until the process ends, however it ends; gives the descriptor to close.

    Raises:
        UserError: where another process holds it.
    """
    descriptor = os.open(files.folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UserError(f"Another process is writing {files.video}. Wait for it, or end it first.") from error
    except OSError:
        pass  # a file system without locks
    return descriptor


def append_array(file: Path, done: int, frames: Float[np.ndarray, "n H W 3"]) -> None:
    """Append float frames to the .npy which holds `done` of them, then let its header count them."""
    total = (done + len(frames), *frames.shape[1:])
    data = np.ascontiguousarray(frames, "<f4").data.cast("B")
    if done:
        journal.append(file, _length(done, frames.shape[1:3]), data)
        journal.overwrite(file, 0, header(total))
    else:
        journal.append(file, 0, header(total) + bytes(data))


def header(shape: tuple[int, ...]) -> bytes:
    """An .npy header (format 1.0) of float32, of one length for all shapes."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11).encode() + b"\n"


def array_length(files: Files, frames: int, size: tuple[int, int]) -> dict[Path, int]:
    """The .npy and its bytes with so many frames; empty where none is kept."""
    return {files.array: _length(frames, size)} if files.array else {}


def _length(frames: int, size: tuple[int, int]) -> int:
    return HEADER + frames * size[0] * size[1] * 3 * 4


def cut(files: Files, frames: int, video_bytes: int, size: tuple[int, int]) -> None:
    """Take back what was written after the last finished chunk."""
    if not frames:
        return
    os.truncate(files.video, video_bytes)
    for array, length in array_length(files, frames, size).items():
        journal.overwrite(array, 0, header((frames, *size, 3)))
        os.truncate(array, length)
