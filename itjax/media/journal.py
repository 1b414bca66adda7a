"""What survives a kill: whole-or-not replacement of files, appends at a known length, and the journal of a run.

Knows nothing of video. POSIX only: a rename is final once its folder is synced.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from itjax.errors import UserError

Fingerprint = Mapping[str, str | int | float]

STATE = "state.npz"
NEXT = "next.npz"
RECORD = "journal"
PREFIX = "state."


class Journal(NamedTuple):
    """A run after its last finished chunk. `mark` names the run within the files that it writes."""

    mark: str
    fingerprint: Fingerprint
    chunks: int = 0
    frames: int = 0
    packets: int = 0
    video_bytes: int = 0
    state: dict[str, np.ndarray] | None = None


def digest(fingerprint: Fingerprint) -> str:
    """The same for equal fingerprints, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()[:32]


def differences(old: Fingerprint, new: Fingerprint) -> str:
    """One line for each key whose value differs; '' where none does."""
    keys = [key for key in sorted({*old, *new}) if old.get(key, "not set") != new.get(key, "not set")]
    return "\n".join(f"  {key}: {old.get(key, 'not set')} before, {new.get(key, 'not set')} now" for key in keys)


def prepare(folder: Path, journal: Journal) -> None:
    """Write the next journal beside the valid one. All that can fill the disk comes before `commit`."""
    arrays: dict[str, Any] = {PREFIX + name: np.asarray(array) for name, array in (journal.state or {}).items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "biufc":  # bfloat16 is not among them: .npz gives it back as raw bytes
            raise TypeError(f"{name} is {array.dtype}; .npz keeps NumPy's own numbers only.")
    record = json.dumps({**journal._asdict(), "fingerprint": dict(journal.fingerprint), "state": None})
    with open(folder / NEXT, "wb") as file:
        np.savez(file, **{**arrays, RECORD: np.frombuffer(record.encode(), np.uint8)})
        file.flush()
        os.fsync(file.fileno())


def commit(folder: Path) -> None:
    """Make the prepared journal the valid one. A kill before it takes back the chunk, a kill after it does not."""
    os.replace(folder / NEXT, folder / STATE)
    sync_folder(folder)


def load(folder: Path) -> Journal | None:
    """The valid journal; None before the first chunk.

    Raises:
        UserError: where the file cannot be read.
    """
    if not (folder / STATE).exists():
        return None
    try:
        with np.load(folder / STATE, allow_pickle=False) as file:
            record = json.loads(file[RECORD].tobytes())
            state = {name.removeprefix(PREFIX): file[name] for name in file.files if name != RECORD}
            return Journal(**{**record, "state": state})
    except Exception as error:  # zip, json, key and value errors alike: a file that we did not write, or a broken disk
        raise UserError(f"{folder / STATE} cannot be read ({error}). To start over, delete {folder}.") from error


def clear(folder: Path) -> None:
    """Forget the run."""
    for name in (STATE, NEXT):
        (folder / name).unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Delete a run's folder, but no file in it that is not ours. What cannot be deleted is left."""
    with contextlib.suppress(OSError):
        clear(folder)
        folder.rmdir()


def append(file: Path, length: int, data: bytes | memoryview) -> None:
    """Make the file its first `length` bytes and `data`, on the disk when this returns.

    At length 0 an older file of that name goes only when the new one is complete.

    Raises:
        OSError: when the disk refuses. What it took is given back, so that the file is again what it was.
    """
    target = file if length else partial_file(file)
    descriptor = os.open(target, os.O_WRONLY | (0 if length else os.O_CREAT), 0o666)
    try:
        os.ftruncate(descriptor, length)
        _write(descriptor, length, data)
        os.fsync(descriptor)
    except OSError as error:
        error.filename = str(file)  # the calls by descriptor do not name it
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, length) if length else os.unlink(target)
        raise
    finally:
        os.close(descriptor)
    if target != file:
        os.replace(target, file)
        sync_folder(file.parent)


def overwrite(file: Path, offset: int, data: bytes) -> None:
    """Replace bytes within the file, on the disk when this returns."""
    descriptor = os.open(file, os.O_WRONLY)
    try:
        _write(descriptor, offset, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(new: Path, file: Path) -> None:
    """Put a complete new file in the place of an old one."""
    descriptor = os.open(new, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(new, file)
    sync_folder(file.parent)


def partial_file(file: Path) -> Path:
    """Where the first bytes of a file lie until they are complete."""
    return file.with_name(file.name + ".part")


def _write(descriptor: int, offset: int, data: bytes | memoryview) -> None:
    """Write all of it: the system may take less at once, and says that the disk is full only at the next call."""
    rest = memoryview(data)
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[count:], offset + count


def sync_folder(folder: Path) -> None:
    """Make renames in this folder final."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
