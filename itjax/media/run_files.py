"""The files of a run: their paths, whether they are writable, and the .npy of float frames, valid after each chunk."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from itjax.disk import lock_folder
from itjax.errors import UserError
from itjax.media import journal

# n frames of a chunk · H W pixels

HEADER_BYTES = 128  # bytes of the .npy header, enough for any number of frames


class Files(NamedTuple):
    """The outputs of a run: the video, the folder of its journal, and optionally the float frames."""

    video: Path
    folder: Path
    array: Path | None


def resolve_paths(save_file: str | Path, save_frames: str | Path | None) -> Files:
    """Determines the paths of all outputs, and checks that they can be written before hours of work.

    Raises:
        UserError: if a path cannot be written.
    """
    files = output_files(save_file, save_frames)
    try:
        files.folder.mkdir(exist_ok=True)
        for file in (files.video, files.array):
            if file:
                journal.partial_file(file).touch()  # tries to write: permission bits do not reveal a read-only disk
                journal.partial_file(file).unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            files.folder.rmdir()
        raise UserError(f"{error.filename} cannot be written: {error.strerror}.") from error
    return files


def output_files(save_file: str | Path, save_frames: str | Path | None) -> Files:
    """The paths of all outputs. Nothing is written.

    Raises:
        UserError: if a path is a folder, or its folder does not exist.
    """
    video = _with_ending(save_file, ".mp4")
    array = _with_ending(save_frames, ".npy") if save_frames else None
    return Files(video, video.with_suffix(".resume"), array)


def _with_ending(given: str | Path, ending: str) -> Path:
    file = Path(given)
    if file.is_dir():
        raise UserError(f"{file} is a folder; specify a file name in it.")
    if file.suffix.lower() != ending:
        file = file.with_name(file.name + ending)
    if file.is_dir():
        raise UserError(f"{file} is a folder; choose another name.")
    if not file.parent.is_dir():
        raise UserError(f"The folder {file.parent} does not exist. Create it, or choose another path for {file.name}.")
    return file


def lock(files: Files) -> int:
    """Locks the run's folder until the process ends in any way; returns the descriptor, to be closed to unlock it.

    Raises:
        UserError: if another process holds the lock.
    """
    return lock_folder(files.folder, f"Another process is writing {files.video}. Wait for it to finish, or stop it.")


def append_array(file: Path, done: int, frames: Float[np.ndarray, "n H W 3"]) -> None:
    """Appends float frames to the .npy, which contains `done` frames, then updates the count in its header."""
    total = (done + len(frames), *frames.shape[1:])
    data = np.ascontiguousarray(frames, "<f4").data.cast("B")
    if done:
        journal.append(file, _length(done, frames.shape[1:3]), data)
        journal.overwrite(file, 0, header(total))
    else:
        journal.append(file, 0, header(total) + bytes(data))


def header(shape: tuple[int, ...]) -> bytes:
    """An .npy header (format 1.0) for float32, with the same length for all shapes."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little") + text.ljust(HEADER_BYTES - 11).encode() + b"\n"


def array_length(files: Files, frames: int, size: tuple[int, int]) -> dict[Path, int]:
    """{path of the .npy: its length in bytes with `frames` frames}; empty if float frames are not saved."""
    return {files.array: _length(frames, size)} if files.array else {}


def _length(frames: int, size: tuple[int, int]) -> int:
    return HEADER_BYTES + frames * size[0] * size[1] * 3 * 4


def truncate(files: Files, frames: int, video_bytes: int, size: tuple[int, int]) -> None:
    """Truncates the files to the last finished chunk."""
    if not frames:
        return
    os.truncate(files.video, video_bytes)
    for array, length in array_length(files, frames, size).items():
        journal.overwrite(array, 0, header((frames, *size, 3)))
        os.truncate(array, length)
