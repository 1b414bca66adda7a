"""Finds the videos in a folder and the files next to each (caption, voices, boxes, region). Opens no video."""

import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from itjax.errors import UserError
from itjax.input_files import read_json
from itjax.media.companions import BOXES_SUFFIX, CAPTION_SUFFIX, COMPANION_SUFFIXES, REGION_SUFFIXES, VOICE_SUFFIXES


class Video(NamedTuple):
    """A video and the files next to it (None if missing). `name` is its path within the folder."""

    name: str
    path: Path
    caption: Path | None
    voices: tuple[Path | None, Path | None]
    boxes: Path | None
    region: Path | None

    @property
    def persons(self) -> int:
        """Number of persons: 2 if there is a separate voice file, else 1."""
        return 2 if any(self.voices) else 1


def find_videos(folder: Path, exclude: Path) -> list[Video]:
    """All files in `folder` and its subfolders except hidden ones and companions of a video, sorted by name.

    Files in `exclude` (the dataset) are ignored.

    Raises:
        UserError: if the folder does not exist, contains no videos, or is inside `exclude`.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. It should be the folder with the videos.")
    if folder.resolve().is_relative_to(exclude.resolve()):
        raise UserError(f"{exclude} contains the videos: choose a separate folder for the dataset")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path, folder))
    files = [path for path in files if not path.resolve().is_relative_to(exclude.resolve())]
    videos = [_video(path, folder) for path in files if not path.name.lower().endswith(COMPANION_SUFFIXES)]
    if not videos:
        raise UserError(f"{folder}: there are no videos in this folder or its subfolders.")
    used = {path for video in videos for path in (video.path, *_companions(video))}
    for path in files:
        if path not in used:
            warnings.warn(f"{path} is ignored: there is no video with the same name next to it", stacklevel=2)
    return videos


def signatures(videos: Iterable[Video]) -> dict[str, str]:
    """{name: size and modification time} of all files, to detect changes."""
    folder_of = {video.name: video.path.parents[len(Path(video.name).parts) - 1] for video in videos}
    signature_of = {}
    for video in videos:
        for path in (video.path, *_companions(video)):
            stat = path.stat()
            name = path.relative_to(folder_of[video.name]).as_posix()
            signature_of[name] = f"{stat.st_size} bytes of {datetime.fromtimestamp(stat.st_mtime, UTC).replace(tzinfo=None)}"
    return signature_of


def _companions(video: Video) -> list[Path]:
    return [path for path in (video.caption, *video.voices, video.boxes, video.region) if path is not None]


def read_caption(video: Video) -> str:
    """The caption, or "" if there is none.

    Raises:
        UserError: if the file cannot be read as UTF-8 text.
    """
    if video.caption is None:
        return ""
    try:
        return video.caption.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{video.caption} cannot be read as UTF-8 text: {error}") from error


def read_boxes(video: Video) -> list | None:
    """The two persons' boxes, in the format of the input JSON. Whether they fit the image is checked later.

    None if there is no file: then each person has one half of the image.

    Raises:
        UserError: if the file has another format.
    """
    if video.boxes is None:
        return None
    try:
        content = read_json(video.boxes)
        boxes = content["bbox"]
        return [boxes[person] for person in ("person1", "person2")]
    except (UserError, KeyError, TypeError) as error:
        expected = '{"bbox": {"person1": [top, left, bottom, right], "person2": [...]}}'
        raise UserError(f"{video.boxes} cannot be read ({error}): it must be {expected}") from error


def check_companions(video: Video) -> None:
    """Checks that the files next to the video are consistent.

    Raises:
        UserError: if one of two voices is missing, or there are boxes for a single person.
    """
    for voice, suffix in zip(video.voices, VOICE_SUFFIXES, strict=True):
        if voice is None and video.persons == 2:
            raise UserError(
                f"{Path(video.name).stem}{suffix} is missing: two persons need one voice file each (it may be silent)"
            )
    if video.boxes is not None and video.persons == 1:
        raise UserError(
            f"{video.boxes.name} has boxes for two persons, but their voices (NAME.1.wav, NAME.2.wav) are missing"
        )


def _video(path: Path, folder: Path) -> Video:
    companion = lambda suffix: path.with_name(path.stem + suffix) if path.with_name(path.stem + suffix).is_file() else None
    voices = (companion(VOICE_SUFFIXES[0]), companion(VOICE_SUFFIXES[1]))
    region = companion(REGION_SUFFIXES[0]) or companion(REGION_SUFFIXES[1])
    return Video(
        path.relative_to(folder).as_posix(), path, companion(CAPTION_SUFFIX), voices, companion(BOXES_SUFFIX), region
    )


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
