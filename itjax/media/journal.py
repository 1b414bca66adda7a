"""Crash-safe files: atomic replacement, appending at a known length, and the journal of a run.

Independent of video. POSIX only: a rename is durable once its folder is synced.
"""

import contextlib
import hashlib
import json
import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from itjax.errors import UserError
from itjax.input_files import parse_json
from itjax.version import __version__

Fingerprint = Mapping[str, str | int | float]

STATE_FILE = "state.npz"
NEXT_FILE = "next.npz"
RECORD_KEY = "journal"
PREFIX = "state."
VERSION_KEY = "itjax"  # of the fingerprint
NUMBERS = "biufc"  # kinds of dtypes


class Journal(NamedTuple):
    """The state of a run after its last finished chunk. `mark` identifies the run in the files it writes."""

    mark: str
    fingerprint: Fingerprint
    chunks: int = 0
    frames: int = 0
    packets: int = 0
    video_bytes: int = 0
    state: dict[str, np.ndarray] | None = None


def digest(fingerprint: Fingerprint) -> str:
    """Hash of a fingerprint, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()[:32]


def differences(old: Fingerprint, new: Fingerprint) -> str:
    """One line per key whose value differs; '' if none does."""
    keys = [key for key in sorted({*old, *new}) if old.get(key, "not set") != new.get(key, "not set")]
    return "\n".join(f"  {key}: {old.get(key, 'not set')} before, {new.get(key, 'not set')} now" for key in keys)


def prepare(folder: Path, journal: Journal) -> None:
    """Writes the next journal next to the valid one. Everything that can fill the disk happens before `commit`."""
    arrays: dict[str, Any] = {PREFIX + name: np.asarray(array) for name, array in (journal.state or {}).items()}
    for name, array in arrays.items():
        if array.dtype.kind not in NUMBERS:  # this excludes bfloat16, which .npz returns as raw bytes
            raise TypeError(f"{name} is {array.dtype}; .npz supports only NumPy's own numeric types.")
    record = json.dumps({**journal._asdict(), "fingerprint": dict(journal.fingerprint), "state": None})
    with os.fdopen(create(folder / NEXT_FILE), "wb") as file:
        np.savez(file, **{**arrays, RECORD_KEY: np.frombuffer(record.encode(), np.uint8)})
        file.flush()
        os.fsync(file.fileno())


def commit(folder: Path) -> None:
    """Makes the prepared journal the valid one. After a kill before this, the chunk is discarded; after it, it is kept."""
    _rename(folder / NEXT_FILE, folder / STATE_FILE)


def load(folder: Path) -> Journal | None:
    """The valid journal; None before the first chunk.

    Raises:
        UserError: if the file cannot be read, or is not one that `prepare` of this version wrote.
    """
    file, version = folder / STATE_FILE, ""
    if not os.path.lexists(file):
        return None
    try:
        if not stat.S_ISREG(file.lstat().st_mode):
            raise ValueError("not a regular file")
        with np.load(file, allow_pickle=False) as arrays:
            if any(member.compress_type != zipfile.ZIP_STORED for member in arrays.zip.infolist()):
                raise ValueError("compressed")  # what is stored takes no more memory than the file is long
            record = parse_json(arrays[RECORD_KEY].tobytes(), RECORD_KEY)
            version = f" {record['fingerprint'].get(VERSION_KEY, '')}".rstrip()
            return _checked(record, {name: arrays[name] for name in arrays.files if name != RECORD_KEY})
    except Exception as error:  # any zip, json, key or value error: a foreign file or a faulty disk
        raise UserError(
            f"{file} cannot be read ({error}): it is damaged, or of another version of itjax{version} than this one, "
            f"{__version__}. The video made so far is untouched; to start over, delete {folder}."
        ) from error


def _checked(record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Journal:
    """The journal of this record and these arrays. Raises ValueError if they are not such as `prepare` writes."""
    if record.keys() != set(Journal._fields):
        raise ValueError(f"it holds {', '.join(record)}, not {', '.join(Journal._fields)}")
    journal = Journal(**record)
    counts = {name: record[name] for name in ("chunks", "frames", "packets", "video_bytes")}
    if any(type(count) is not int for count in counts.values()) or journal.packets < 0 or journal.video_bytes < 1:
        raise ValueError(f"its counts are {counts}")
    if not 1 <= journal.chunks <= journal.frames:
        raise ValueError(f"its counts are {counts}")
    if not isinstance(journal.mark, str) or any(
        type(value) not in (str, int, float) for value in journal.fingerprint.values()
    ):
        raise ValueError("its fingerprint is not one")
    if any(not name.startswith(PREFIX) or array.dtype.kind not in NUMBERS for name, array in arrays.items()):
        raise ValueError("its state does not consist of numbers")
    return journal._replace(state={name.removeprefix(PREFIX): array for name, array in arrays.items()})


def clear(folder: Path) -> None:
    """Deletes the journal of a run."""
    for name in (STATE_FILE, NEXT_FILE):
        (folder / name).unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Deletes a run's folder unless it contains other files. Ignores errors."""
    with contextlib.suppress(OSError):
        clear(folder)
        folder.rmdir()


def append(file: Path, length: int, data: bytes | memoryview) -> None:
    """Truncates the file to `length` bytes and appends `data`; durable when this returns.

    At length 0, an older file with this name is replaced only when the new one is complete.

    Raises:
        OSError: if writing fails. The file is then restored to `length` bytes.
    """
    target = file if length else partial_file(file)
    descriptor = os.open(target, os.O_WRONLY) if length else create(target)
    try:
        os.ftruncate(descriptor, length)
        _write(descriptor, length, data)
        os.fsync(descriptor)
    except OSError as error:
        error.filename = str(file)  # calls on a descriptor do not set it
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, length) if length else os.unlink(target)
        raise
    finally:
        os.close(descriptor)
    if target != file:
        _rename(target, file)


def overwrite(file: Path, offset: int, data: bytes) -> None:
    """Replaces bytes within the file; durable when this returns."""
    descriptor = os.open(file, os.O_WRONLY)
    try:
        _write(descriptor, offset, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(new: Path, file: Path) -> None:
    """Replaces an old file by a complete new one."""
    descriptor = os.open(new, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _rename(new, file)


def create(file: Path) -> int:
    """Creates a file for writing, in place of one that a killed run left. Does not follow a link; returns the descriptor."""
    file.unlink(missing_ok=True)
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)


def partial_file(file: Path) -> Path:
    """The temporary path of a file until its first bytes are complete."""
    return file.with_name(file.name + ".part")


def _write(descriptor: int, offset: int, data: bytes | memoryview) -> None:
    """Writes all data: a call may write less than requested, and only the next call reports that the disk is full."""
    rest = memoryview(data)
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[count:], offset + count


def _rename(new: Path, file: Path) -> None:
    """Replaces a file by another one of the same folder, durably if the disk allows.

    An error after the rename is not raised: the caller would take back what has happened.
    """
    os.replace(new, file)
    with contextlib.suppress(OSError):
        descriptor = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
