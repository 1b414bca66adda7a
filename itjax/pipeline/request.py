"""A request: prompt, source, speech and positions of the persons; can be read from the official input JSON."""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from itjax.errors import UserError
from itjax.input_files import read_json

KNOWN = ("prompt", "cond_video", "cond_image", "cond_audio", "tts_audio", "audio_type", "bbox", "mask")

MAX_COORDINATE = 1e9  # pixels: JSON has integers of any length, which do not fit a float


class Request(NamedTuple):
    """The inputs of one video.

    Attributes:
        prompt: Description of the video.
        source: Source image or video.
        sounds: Audio file of each person by name; None: the person is silent.
        audio_type: Two persons: "para" (simultaneously) or "add" (one after the other).
        boxes: [top, left, bottom, right] of each person, in the order of `sounds`, in pixels of the source. If neither they
            nor masks are given, the first of two persons by name is on the left.
        masks: Mask image of each person, in the same order, instead of boxes.
        file: JSON file that the request was read from.
    """

    prompt: str
    source: str | Path
    sounds: Mapping[str, str | Path | None]
    audio_type: str | None = None
    boxes: list[list[int | float]] | None = None
    masks: Sequence[str | Path] | None = None
    file: Path | None = None


def from_json(path: str | Path) -> Request:
    """Reads a request from a JSON file in the official format (plus `mask`: one image per person, instead of `bbox`).

    Relative paths are tried relative to the JSON file's folder, then to the current one (as in the official examples).

    Raises:
        UserError: if a file or key is missing, or a value is invalid.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"--input_json {path}: must be an object with the keys prompt, cond_video and cond_audio")
    if content.get("tts_audio") and not content.get("cond_audio"):
        raise UserError(f"{path}: text-to-speech (tts_audio) is not supported; provide audio files in cond_audio")
    source = "cond_image" if "cond_image" in content and "cond_video" not in content else "cond_video"
    missing = [key for key in ("prompt", source, "cond_audio") if key not in content]
    if missing:
        raise UserError(f"{path}: missing key(s) {', '.join(missing)}; the file has {', '.join(content) or 'none'}")
    if unknown := [key for key in content if key not in KNOWN]:
        warnings.warn(f"{path}: ignoring unknown key(s) {', '.join(unknown)}", stacklevel=2)
    sounds = _by_person(path, "cond_audio", content["cond_audio"])
    audio_type = content.get("audio_type")
    find = lambda key, name: _file(path, key, name)
    persons = list(sounds)
    return Request(
        prompt=_text(path, "prompt", content["prompt"]),
        source=find(source, content[source]),
        sounds={person: _sound(path, person, name) for person, name in sounds.items()},
        audio_type=None if audio_type is None else _text(path, "audio_type", audio_type),
        boxes=_boxes(path, content.get("bbox"), persons),
        masks=_mask_files(path, content.get("mask"), persons),
        file=path,
    )


def _by_person(path: Path, key: str, value: Any) -> dict[str, Any]:
    """{person: value}, sorted by the persons' names as in the official code."""
    if not isinstance(value, Mapping) or not value:
        raise UserError(f'{path}: {key} must be {{"person1": ..., "person2": ...}}, not {_shown(value)}')
    return {person: value[person] for person in sorted(value)}


def _each(path: Path, key: str, value: Any, persons: list[str]) -> list | None:
    """One entry per person; None if there is no such key. Raises UserError if the persons differ from cond_audio's."""
    if value is None:
        return None
    entries = _by_person(path, key, value)
    if list(entries) != persons:
        raise UserError(f"{path}: {key} names {', '.join(entries)}, but cond_audio names {', '.join(persons)}")
    return list(entries.values())


def _boxes(path: Path, value: Any, persons: list[str]) -> list[list[int | float]] | None:
    """Four numbers per person. Whether they fit the image is checked later, when it is opened."""
    boxes = _each(path, "bbox", value, persons)
    for person, box in zip(persons, boxes or (), strict=False):
        if not isinstance(box, list) or [type(n) in (int, float) and abs(n) < MAX_COORDINATE for n in box] != [True] * 4:
            raise UserError(f"{path}: bbox.{person} must be [top, left, bottom, right], not {_shown(box)}")
    return boxes


def _mask_files(path: Path, value: Any, persons: list[str]) -> list[Path] | None:
    names = _each(path, "mask", value, persons)
    return None if names is None else [_file(path, f"mask of {p}", name) for p, name in zip(persons, names, strict=True)]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _text(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{path}: {key} must be a string, not {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{path}: {key} has half a surrogate pair: {_shown(value)}. Correct it.") from None
    return value


def _sound(path: Path, person: str, name: Any) -> Path | None:
    """The person's audio file; None for a silent person, as which the official JSON has "None"."""
    return None if name in (None, "None") else _file(path, f"cond_audio.{person}", name)


def _file(path: Path, key: str, name: Any) -> Path:
    name = _text(path, key, name)
    for candidate in (path.parent / name, Path(name)):
        if os.path.exists(candidate):  # also where the name itself is impossible (too long, or with a null character)
            return candidate
    raise UserError(f"{path}: {key}: there is no file {name[:200]}, neither next to the JSON file nor in the current folder")
