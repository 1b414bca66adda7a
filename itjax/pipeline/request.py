"""What a user asks for: prompt, source, voices, and who is where. From the official input JSON, or from plain flags."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from itjax.errors import UserError

KNOWN = ("prompt", "cond_video", "cond_image", "cond_audio", "tts_audio", "audio_type", "bbox", "mask")


class Request(NamedTuple):
    """One video to be made. `sounds` maps persons, in order, to their files (None: one who is silent throughout).

    `boxes` are [top, left, bottom, right].
    """

    prompt: str
    source: str | Path
    sounds: Mapping[str, str | Path | None]
    audio_type: str | None = None
    boxes: list[list[float]] | None = None
    masks: Sequence[str | Path] | None = None


def from_json(path: str | Path) -> Request:
    """The request in an input JSON of the official form (and `mask`: a picture a person, in place of `bbox`).

    Files are looked for beside the JSON, then in the current folder (the official examples mean the latter).

    Raises:
        UserError: that names what is missing, not readable or not understood.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"--input_json {path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"--input_json {path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"--input_json {path}: an object with prompt, cond_video and cond_audio is expected")
    if content.get("tts_audio") and not content.get("cond_audio"):
        raise UserError(f"{path}: speech from text (tts_audio) is not made here; give sound files as cond_audio")
    source = "cond_image" if "cond_image" in content and "cond_video" not in content else "cond_video"
    missing = [key for key in ("prompt", source, "cond_audio") if key not in content]
    if missing:
        raise UserError(f"{path}: the key {', '.join(missing)} is missing; it has {', '.join(content) or 'none'}")
    if unknown := [key for key in content if key not in KNOWN]:
        warnings.warn(f"{path}: no meaning is known for {', '.join(unknown)}; left out", stacklevel=2)
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
    )


def _by_person(path: Path, key: str, value: Any) -> dict[str, Any]:
    """{person: value}, persons in the order of their names as the official code has them."""
    if not isinstance(value, Mapping) or not value:
        raise UserError(f'{path}: {key} must be {{"person1": ..., "person2": ...}}, and is {json.dumps(value)}')
    return {person: value[person] for person in sorted(value)}


def _each(path: Path, key: str, value: Any, persons: list[str]) -> list | None:
    """One entry a person, or None where the key is absent. Raises UserError where persons and entries differ."""
    if value is None:
        return None
    entries = _by_person(path, key, value)
    if list(entries) != persons:
        raise UserError(f"{path}: {key} names {', '.join(entries)}, but cond_audio names {', '.join(persons)}")
    return list(entries.values())


def _boxes(path: Path, value: Any, persons: list[str]) -> list[list[float]] | None:
    """Four numbers a person; whether they make sense is for the picture to say."""
    boxes = _each(path, "bbox", value, persons)
    for person, box in zip(persons, boxes or (), strict=False):
        if not isinstance(box, list) or [type(n) in (int, float) for n in box] != [True] * 4:
            raise UserError(f"{path}: bbox.{person} must be [top, left, bottom, right], and is {json.dumps(box)}")
    return boxes


def _mask_files(path: Path, value: Any, persons: list[str]) -> list[Path] | None:
    names = _each(path, "mask", value, persons)
    return None if names is None else [_file(path, f"mask of {p}", name) for p, name in zip(persons, names, strict=True)]


def _text(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{path}: {key} must be a text, and is {json.dumps(value)}")
    return value


def _sound(path: Path, person: str, name: Any) -> Path | None:
    """The person's file; the official JSON writes "None" for one who is silent."""
    return None if name in (None, "None") else _file(path, f"cond_audio.{person}", name)


def _file(path: Path, key: str, name: Any) -> Path:
    name = _text(path, key, name)
    for candidate in (path.parent / name, Path(name)):
        if candidate.exists():
            return candidate
    raise UserError(f"{path}: {key}: there is no file {name}, neither beside the JSON nor in the current folder")
