"""What is written to a disk: whole under its name or not at all, and errors that name the file."""

import contextlib
import fcntl
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from itjax.errors import OutputError, UserError


@contextlib.contextmanager
def output_errors(path: str | os.PathLike) -> Iterator[None]:
    """An OSError in the block becomes an OutputError that names `path`.

    Raises:
        OutputError: where the block raises OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def check_output(path: Path, nbytes: int) -> None:
    """Checks, before the work, that `nbytes` can be written to `path`.

    Raises:
        UserError: where the folder of `path` is missing.
        OutputError: where it has not `nbytes` of free disk.
    """
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: the folder {path.parent} does not exist")
    free = shutil.disk_usage(path.parent).free
    if free < nbytes:
        raise OutputError(f"cannot write {path}: it takes {nbytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path, in a temporary folder next to `path`, for a file or folder that becomes `path` when the block ends.

    If the block raises, what it made is removed. A killed run leaves its folder behind; the next one for the same
    `path` removes it, and knows it from the folder of a run still going by the lock that this one holds.
    """
    for stale in path.parent.glob(f"{glob.escape(path.name)}.tmp-*"):
        with contextlib.suppress(OSError), _locked(stale):
            shutil.rmtree(stale)
    folder = path.parent / f"{path.name}.tmp-{uuid.uuid4().hex[:8]}"
    with output_errors(path):
        folder.mkdir()
    try:
        with contextlib.ExitStack() as lock:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                lock.enter_context(_locked(folder))
            yield folder / path.name
            with output_errors(path):
                os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes a file of UTF-8, whole or not at all.

    Raises:
        OutputError: where the disk refuses.
    """
    with atomic_path(path) as temporary, output_errors(path):
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock on a folder, which ends with the process. Raises OSError if another process has it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
