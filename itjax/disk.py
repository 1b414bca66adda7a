"""Atomic output: files and folders appear complete or not at all, and errors name the file."""

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from itjax.errors import OutputError, UserError

FLUSH_THREADS = 16
TAG_DIGITS = 8  # hexadecimal, of the name of a temporary folder


@contextlib.contextmanager
def output_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turns an OSError in the block into an OutputError that names `path`.

    Raises:
        OutputError: if the block raises OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def check_absent(path: Path) -> None:
    """Checks in advance that nothing would be replaced by a file or folder written to `path`, not even a link to nowhere.

    Raises:
        UserError: if there is something.
    """
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} already exists: remove it or choose another folder")


def check_output(path: Path, nbytes: int) -> None:
    """Checks in advance that `nbytes` can be written to `path`.

    Raises:
        UserError: if the folder of `path` does not exist.
        OutputError: if less than `nbytes` of disk space is free.
    """
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: the folder {path.parent} does not exist")
    free = shutil.disk_usage(path.parent).free
    if free < nbytes:
        raise OutputError(f"cannot write {path}: it needs {size_text(nbytes)}, but only {size_text(free)} are free")


def size_text(nbytes: int) -> str:
    """A size for messages, in MB or GB."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a path in a temporary folder next to `path`; the file or folder made there becomes `path` after the block.

    If the block raises, its output is removed. A killed run leaves its folder behind; the next run for the same `path`
    removes it, but nothing whose name only begins like that. The folder of a run that is still active is locked, which
    distinguishes the two. Before the output gets its name, it is flushed to the disk: after a power failure, too, it is
    complete or absent.
    """
    for stale in path.parent.glob(f"{glob.escape(path.name)}.tmp-{'[0-9a-f]' * TAG_DIGITS}"):
        with contextlib.suppress(OSError), _folder_lock(stale):
            shutil.rmtree(stale)
    folder = path.parent / f"{path.name}.tmp-{uuid.uuid4().hex[:TAG_DIGITS]}"
    with output_errors(path):
        folder.mkdir()
    try:
        with contextlib.ExitStack() as lock:
            with contextlib.suppress(OSError):  # some network file systems do not support locks
                lock.enter_context(_folder_lock(folder))
            yield folder / path.name
            with output_errors(path):
                _flush_all(folder / path.name)
                os.replace(folder / path.name, path)
                _flush(path.parent)
    finally:
        _remove(folder)


def _flush_all(path: Path) -> None:
    """Flushes a file, or a folder with everything in it (concurrently: each one waits for the disk)."""
    if not path.is_dir():
        return _flush(path)
    paths = [Path(folder, name) for folder, _, names in os.walk(path) for name in (*names, ".")]
    with ThreadPoolExecutor(FLUSH_THREADS) as pool:
        for _ in pool.map(_flush, paths):  # raises the first error
            pass


def _flush(path: Path) -> None:
    """Flushes the content of a file, or the names in a folder, to the disk.

    Raises:
        OSError: if that fails. File systems that cannot flush folders are no failure.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Removes a folder to which threads of a failed library call may still be writing."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file atomically.

    Raises:
        OutputError: if writing fails.
    """
    with atomic_path(path) as temporary, output_errors(path):
        temporary.write_text(text, encoding="utf-8")


def lock_folder(folder: Path, refusal: str) -> int:
    """Locks a folder, at most until the process ends; returns the descriptor, which unlocks the folder when it is closed.

    On a file system without locks nothing is locked.

    Raises:
        UserError: with the text `refusal`, if another process holds the lock.
    """
    try:
        return _lock(folder)
    except BlockingIOError as error:
        raise UserError(refusal) from error
    except OSError:
        return os.open(folder, os.O_RDONLY)


@contextlib.contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Locks a folder in this block. Raises OSError if another process holds the lock, or nothing can be locked there."""
    handle = _lock(folder)
    try:
        yield
    finally:
        os.close(handle)


def _lock(folder: Path) -> int:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
