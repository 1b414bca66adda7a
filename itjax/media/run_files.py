"""The files of a run: their paths, whether they are writable, and the .npy of float frames, valid after each chunk."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from itjax.disk import check_output, lock_folder
from itjax.errors import UserError
from itjax.media import journal

# n frames of a chunk · H W pixels

BITS_PER_PIXEL = 0.05  # of a video that compresses well
HEADER_BYTES = 128  # bytes of the .npy header, enough for any number of frames


class Files(NamedTuple):
    """The outputs of a run: the video, the folder of its journal, and optionally the float frames."""

    video: Path
    folder: Path
    array: Path | None


def output_files(save_file: str | Path, save_frames: str | Path | None) -> Files:
    """Determines the paths of all outputs. Writes nothing.

    Raises:
        UserError: if nothing can be written there: a folder, a device, a folder that does not exist, a name too long
            or with characters that names cannot have.
    """
    try:
        video = _with_ending(save_file, ".mp4")
        array = _with_ending(save_frames, ".npy") if save_frames else None
        files = Files(video, video.with_suffix(".resume"), array)
        longest = video.with_suffix(".persons.png")  # of the names that are made of the video's
        for path in (files.folder, longest, *(journal.partial_file(file) for file in (video, array) if file)):
            with contextlib.suppress(FileNotFoundError):
                path.lstat()
    except OSError as error:  # the name is too long, or a folder may not be looked into
        raise UserError(f"{error.filename} cannot be written: {error.strerror}.") from error
    except ValueError as error:  # a null character, or half a surrogate pair
        names = " and ".join(ascii(str(name)) for name in (save_file, save_frames) if name)
        raise UserError(f"{names} cannot be written: a name of a file cannot have these characters ({error}).") from error
    if files.folder.is_symlink():  # nothing is written where somebody else's link points
        raise UserError(f"{files.folder} is a symbolic link; delete it, or choose another name for the video.")
    return files


def lock(files: Files) -> int:
    """Creates the run's folder, and locks it until the process ends in any way.

    Returns the descriptor, to be closed to unlock the folder.

    Raises:
        UserError: if another process holds the lock.
        OSError: if the folder cannot be created.
    """
    refusal = f"Another process is writing {files.video}. Wait for it to finish, or stop it."
    while True:
        files.folder.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            handle = lock_folder(files.folder, refusal)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), files.folder.stat()):
                    return handle
            os.close(handle)  # the process that held the lock has finished, and removed this folder


def check_writable(files: Files) -> None:
    """Checks that files can be created where the outputs belong, before hours of work. Only for the process with the lock.

    Raises:
        OSError: if not; names the output.
    """
    for file in filter(None, (files.video, files.array)):
        try:  # to write: permission bits do not reveal a read-only disk
            tempfile.TemporaryFile(dir=file.parent).close()
        except OSError as error:
            error.filename = os.fspath(file)
            raise


def _with_ending(given: str | Path, ending: str) -> Path:
    file = Path(given)
    if file.is_dir():
        raise UserError(f"{file} is a folder; specify a file name in it.")
    if file.suffix.lower() != ending:
        file = file.with_name(file.name + ending)
    if file.is_dir():
        raise UserError(f"{file} is a folder; choose another name.")
    if file.exists() and not file.is_file():
        raise UserError(f"{file} is a device or a pipe, not a file; choose another name.")
    if not file.parent.is_dir():
        raise UserError(f"The folder {file.parent} does not exist. Create it, or choose another path for {file.name}.")
    return file


def check_room(files: Files, size: tuple[int, int], frames: int) -> None:
    """Checks that there is room for `frames` more frames: float frames exactly, the video by a low estimate.

    Raises:
        OutputError: if not.
    """
    pixels = frames * size[0] * size[1]
    check_output(files.video, round(2 * pixels * BITS_PER_PIXEL / 8))  # at the end there are two copies
    if files.array:
        check_output(files.array, pixels * 3 * 4)


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
