"""A disk that is full at a chosen call: for every Python call that needs room on it, below one folder."""

import builtins
import errno
import io
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class FullDisk:
    """Counts the calls that need room below `folder`, and refuses those from number `at` on, or `only` that one.

    Libraries that write with C code of their own (tensorstore, FFmpeg, ArrayRecord) are not reached: for these there is
    `disk_of`.
    """

    def __init__(self, folder: Path, at: int, only: bool, reason: int = errno.ENOSPC):
        self.folder, self.at, self.only, self.count = os.path.realpath(folder) + "/", at, only, 0
        self.reason = reason

    def needs_room(self, where: int | str | os.PathLike) -> None:
        """Raises OSError if the call to `where` (a path or a descriptor) is one to refuse."""
        path = os.readlink(f"/proc/self/fd/{where}") if isinstance(where, int) else os.path.realpath(where)
        if not f"{path}/".startswith(self.folder):
            return
        number, self.count = self.count, self.count + 1
        if number == self.at or (number > self.at and not self.only):
            raise OSError(self.reason, os.strerror(self.reason), None if isinstance(where, int) else os.fspath(where))

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Replaces the calls."""

        def refusing(call: Callable, is_counted: Callable[..., Any] = lambda *_: True) -> Callable:
            def wrapped(where, *args, **kwargs):
                if is_counted(*args):
                    self.needs_room(where)
                return call(where, *args, **kwargs)

            return wrapped

        for name in ("pwrite", "write", "mkdir"):
            patch.setattr(os, name, refusing(getattr(os, name)))
        # some file systems find out when they flush; the disk itself is not waited for
        patch.setattr(os, "fsync", refusing(lambda descriptor: None))
        patch.setattr(os, "open", refusing(os.open, lambda flags, *_: flags & os.O_CREAT))
        for name in ("rename", "replace"):
            patch.setattr(os, name, refusing(getattr(os, name)))
        plain = io.open

        def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
            if not set(mode) & set("wax+") or opener is not None:
                return plain(file, mode, buffering, encoding, errors, newline, closefd, opener)
            if isinstance(file, str | os.PathLike):
                self.needs_room(file)
            raw = _RawFile(file, mode.replace("t", "").replace("b", ""), closefd)
            raw.disk = self
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline, buffering == 1)

        patch.setattr(io, "open", opened)
        patch.setattr(builtins, "open", opened)


class _RawFile(io.FileIO):
    """A file whose writes are counted when they leave the buffer, as on a real disk."""

    disk: FullDisk

    def write(self, data: Any) -> int:
        self.disk.needs_room(self.fileno())
        return super().write(data)


def full_disks(folders: Path, step: int = 1, offset: int = 0) -> Iterator[tuple[Path, FullDisk]]:
    """Yields a new folder and its disk, first full from every call on and then full at this one call only.

    Ends after a disk with more room than calls were made. Every `step`-th call, from number `offset` on.
    """
    for only in (False, True):
        for at in itertools.count(offset, step):
            folder = folders / f"{'only' if only else 'from'}-{at}"
            folder.mkdir()
            disk = FullDisk(folder, at, only)
            yield folder, disk
            if disk.count <= at:
                break
