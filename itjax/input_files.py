"""Input files from anyone: only regular files are opened, and JSON is read with limits. Errors name the file."""

import hashlib
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from itjax.errors import UserError

PathLike = str | os.PathLike[str]

JSON_BYTES = 16_000_000  # more than any JSON file here needs
READ_WHOLE = 256_000_000  # bytes: of larger files, parts identify the content
PARTS, PART_BYTES = 64, 250_000  # of 31 GB of weights in twelve files 0.2 GB are read
JSON_DEPTH = 100  # levels of objects and lists; Python's parser ends at about a thousand


def check_file(path: PathLike, what: str) -> int:
    """Checks that a file can be read, without opening it; returns its size in bytes.

    `what` is what error messages say was expected.

    Raises:
        UserError: if `path` is missing, a folder, a pipe or device (reading one may wait for ever), empty, or not readable.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. It should be {what}.") from None
    except (OSError, ValueError) as error:  # ValueError: a null character, or half a surrogate pair
        raise UserError(f"{str(path)!a}: no file can be found under this name ({_reason(error)}).") from error
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{path}: this is a folder, not a file. It should be {what}.")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path}: this is a pipe or device. It should be {what}, saved as a file.")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read the file.")
    if found.st_size == 0:
        raise UserError(f"{path}: the file is empty. It should be {what}.")
    return found.st_size


def content_id(path: PathLike) -> str:
    """Identifies a file by its content: equal for copies. Of a large file only the size and evenly spaced parts are read.

    Raises:
        UserError: as in `check_file`.
    """
    size = check_file(path, "a file")
    with Path(path).open("rb") as file:
        if size <= READ_WHOLE:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
        digest = hashlib.sha256(str(size).encode())
        for part in range(PARTS):
            file.seek((size - PART_BYTES) * part // (PARTS - 1))  # from the first byte to the last
            digest.update(file.read(PART_BYTES))
    return digest.hexdigest()[:16]


def read_json(path: PathLike, max_bytes: int = JSON_BYTES) -> Any:
    """The content of a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        UserError: as in `check_file` and `parse_json`, or if the file has more than `max_bytes`.
    """
    check_file(path, "a JSON file")
    try:
        with Path(path).open("rb") as file:
            text = file.read(max_bytes + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {_reason(error)}.") from error
    if len(text) > max_bytes:
        raise UserError(f"{path}: the file has more than {max_bytes:,} bytes, too much for this kind of JSON.")
    return parse_json(text, path)


def parse_json(text: bytes, name: object) -> Any:
    """Parses JSON that may be damaged or made to do harm; `name` is the file in error messages.

    Raises:
        UserError: if it is not JSON in UTF-8, a key occurs twice in an object, a number is not finite, or objects and lists
            are nested too deep.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise UserError(f"{name}: the key {json.dumps(twice[:100])} occurs twice. Remove one of them.")
        return content

    def finite(number: str) -> float:
        if not math.isfinite(value := float(number)):
            raise UserError(f"{name}: the number {number[:100]} is not finite.")
        return value

    too_deep = f"{name}: objects and lists are nested more than {JSON_DEPTH} deep."
    try:
        content = json.loads(text.decode("utf-8-sig"), object_pairs_hook=once, parse_float=finite, parse_constant=finite)
    except RecursionError:
        raise UserError(too_deep) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: the text is not UTF-8 (byte {error.start + 1}). Save it as UTF-8.") from error
    except ValueError as error:
        raise UserError(f"{name}: cannot be read as JSON: {error}.") from error
    level = [content]
    for _ in range(JSON_DEPTH + 1):  # so that later code can follow it, too, e.g. to show a value in a message
        lists = [
            list(value.values()) if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)
        ]
        level = [inner for values in lists for inner in values]
        if not lists:
            return content
    raise UserError(too_deep)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
