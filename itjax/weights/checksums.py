"""Checksums of a checkpoint's small files. Its arrays have their own: a CRC32C of every chunk, checked when it is read."""

import hashlib
import json
from pathlib import Path

from itjax.errors import UserError
from itjax.input_files import read_json

FILE = "checksums.json"


def write(folder: Path, arrays: set[str]) -> None:
    """Stores the SHA-256 of each file in `folder` that is not a chunk of one of the `arrays` (names of folders).

    Raises:
        OSError: if a file cannot be read or written.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        is_chunk = name.parts[0] in arrays and name.parts[1:2] == ("c",)
        if path.is_file() and not is_chunk:
            found[name.as_posix()] = sha256(path)
    (folder / FILE).write_text(json.dumps({"sha256": found}, indent=1) + "\n")


def check(folder: Path) -> bool:
    """Compares the stored checksums with the files. Returns False if there are none, as in older checkpoints.

    Raises:
        UserError: if a file is missing or differs.
    """
    if not (folder / FILE).exists():
        return False
    content = read_json(folder / FILE)
    stored = content.get("sha256") if isinstance(content, dict) else None
    if not isinstance(stored, dict):
        raise UserError(f"{folder / FILE} is damaged")
    for name, expected in stored.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing, but {folder / FILE} lists it")
        if sha256(path) != expected:
            raise UserError(f"{path} is damaged: its content does not match its checksum in {folder / FILE}")
    return True


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
