"""The files of a folder: which are videos, and what lies beside each (caption, voices, boxes, region). Opens no video."""

import json
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from itjax.errors import UserError

CAPTION, BOXES, VOICES = ".txt", ".json", (".1.wav", ".2.wav")
REGIONS = (".region.mp4", ".region.png")


class Video(NamedTuple):
    """A video and what lies beside it; None where there is nothing. `name` is its path within the folder."""

    name: str
    path: Path
    caption: Path | None
    voices: tuple[Path | None, Path | None]
    boxes: Path | None
    region: Path | None

    @property
    def persons(self) -> int:
        """2 where a voice lies beside the video, else 1."""
        return 2 if any(self.voices) else 1


def find_videos(folder: Path, leave_out: Path) -> list[Video]:
    """Every file in `folder` and below that is neither hidden nor something beside a video, sorted by name.

    What lies in `leave_out` (the dataset) does not count.

    Raises:
        UserError: where there is no such folder, nothing in it, or it lies in `leave_out`.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder. Name the folder that the videos are in.")
    if folder.resolve().is_relative_to(leave_out.resolve()):
        raise UserError(f"{leave_out}: the videos are in it; name a folder of its own for the dataset")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path, folder))
    files = [path for path in files if not path.resolve().is_relative_to(leave_out.resolve())]
    videos = [_video(path, folder) for path in files if not path.name.lower().endswith((CAPTION, BOXES, *VOICES, *REGIONS))]
    if not videos:
        raise UserError(f"{folder}: there is no video in this folder, nor in those below it.")
    used = {path for video in videos for path in (video.path, *_companions(video))}
    for path in files:
        if path not in used:
            warnings.warn(f"{path} lies beside no video of its name: it is not used", stacklevel=2)
    return videos


def signatures(videos: Iterable[Video]) -> dict[str, str]:
    """{name: size and time} of all files: enough to notice that one was changed."""
    folder_of = {video.name: video.path.parents[len(Path(video.name).parts) - 1] for video in videos}
    about = {}
    for video in videos:
        for path in (video.path, *_companions(video)):
            stat = path.stat()
            name = path.relative_to(folder_of[video.name]).as_posix()
            about[name] = f"{stat.st_size} bytes of {datetime.fromtimestamp(stat.st_mtime, UTC).replace(tzinfo=None)}"
    return about


def _companions(video: Video) -> list[Path]:
    return [path for path in (video.caption, *video.voices, video.boxes, video.region) if path is not None]


def read_caption(video: Video) -> str:
    """The caption, "" where there is none.

    Raises:
        UserError: where the file is no text.
    """
    if video.caption is None:
        return ""
    try:
        return video.caption.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{video.caption} cannot be read as UTF-8 text: {error}") from error


def read_boxes(video: Video) -> list | None:
    """The two persons' boxes, as input JSONs have them; whether they make sense is for the picture to say.

    None where there is no file: then each person has a half of the picture.

    Raises:
        UserError: where the file is not of that form.
    """
    if video.boxes is None:
        return None
    try:
        content = json.loads(video.boxes.read_text(encoding="utf-8-sig"))
        boxes = content["bbox"]
        return [boxes[person] for person in ("person1", "person2")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        wanted = '{"bbox": {"person1": [top, left, bottom, right], "person2": [...]}}'
        raise UserError(f"{video.boxes} cannot be read ({error!r}): it must be {wanted}") from error


def check_voices(video: Video) -> None:
    """Checks that what lies beside the video fits together.

    Raises:
        UserError: where one voice of two is missing, or boxes are given for one person.
    """
    for voice, ending in zip(video.voices, VOICES, strict=True):
        if voice is None and video.persons == 2:
            raise UserError(
                f"{Path(video.name).stem}{ending} is missing: two persons need a voice each (a silent one counts)"
            )
    if video.boxes is not None and video.persons == 1:
        raise UserError(f"{video.boxes.name} has boxes of persons, but their voices (NAME.1.wav, NAME.2.wav) are missing")


def _video(path: Path, folder: Path) -> Video:
    companion = lambda ending: path.with_name(path.stem + ending) if path.with_name(path.stem + ending).is_file() else None
    voices = (companion(VOICES[0]), companion(VOICES[1]))
    region = companion(REGIONS[0]) or companion(REGIONS[1])
    return Video(path.relative_to(folder).as_posix(), path, companion(CAPTION), voices, companion(BOXES), region)


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
