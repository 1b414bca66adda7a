"""Makes a study's folder: finds and checks the videos, copies them under random names, and adds the page that shows them."""

import json
import random
import secrets
import shutil
import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from itjax.disk import atomic_path, check_output, output_errors, write_text
from itjax.errors import UserError, first_ten
from itjax.media.companions import REGION_VIDEO_SUFFIX
from itjax.media.containers import open_media
from itjax.media.pictures import VideoSource, open_source
from itjax.study.plan import QUESTIONS, Item, Key, key_path, key_to_json, make_plan

VIDEO_SUFFIX = ".mp4"
REFERENCE_SUFFIXES = (VIDEO_SUFFIX, ".png", ".jpg", ".jpeg", ".webp")  # that every browser shows
# what every browser plays in an mp4
VIDEO_CODECS = ("h264", "vp9", "av1")
PIXEL_FORMATS = ("yuv420p", "yuvj420p")
SOUND_CODECS = ("aac", "mp3", "opus", "flac")
CONVERT = "Convert it: ffmpeg -i IN.mp4 -c:v libx264 -pix_fmt yuv420p -c:a aac OUT.mp4"
DEFAULT_PER_ITEM = 3  # videos, or all methods if there are fewer


def make(
    videos: Path, out: Path, title: str, reference: Path | None = None, num_items: int | None = None,
    per_item: int | None = None, seed: int = 0,
) -> Key:  # fmt: skip
    """Writes the study's folder `out` and, next to it, its key.

    Videos are copied as they are: what they say of their encoder, a rater who looks for it can find.

    Args:
        videos: a folder with a folder per method, each with the same NAME.mp4.
        out: folder to create. It contains all that raters need.
        title: heading of the page.
        reference: a folder with NAME.mp4 or an image NAME.png, .jpg or .webp, to be shown next to the videos NAME.mp4.
        num_items: how many of the names to use, chosen at random; None for all.
        per_item: how many videos are ranked together; None for 3, or 2 if there are two methods.
        seed: determines which items are chosen, what is shown together and what is repeated.

    Raises:
        UserError: if a video is missing or cannot be shown in a browser, or `out` or its key exists.
        OutputError: if writing fails.
    """
    _check_new(videos, out)
    methods, names = find_methods(videos)
    per_item = min(DEFAULT_PER_ITEM, len(methods)) if per_item is None else per_item
    if per_item > len(methods):
        raise UserError(f"{videos}: there are {len(methods)} methods, too few to rank {per_item} videos together")
    if num_items is not None:
        if num_items > len(names):
            raise UserError(f"{videos}: {num_items} items are requested, but each method has only {len(names)} videos")
        names = sorted(random.Random(seed).sample(names, num_items))
    references = {} if reference is None else find_references(reference, names)
    key = make_plan(title, list(methods), names, per_item, seed)
    shown = {video: methods[method] / f"{item.name}{VIDEO_SUFFIX}" for item, video, method in _shown(key)}
    for path in sorted(shown.values()):
        check_video(path)
    copies = {f"{video}{VIDEO_SUFFIX}": path for video, path in shown.items()}
    reference_names = {name: f"{secrets.token_hex(8)}{path.suffix.lower()}" for name, path in references.items()}
    copies |= {reference_names[name]: path for name, path in references.items()}
    check_output(out, sum(path.stat().st_size for path in copies.values()))
    _write(out, key, copies, reference_names)
    return key


def _shown(key: Key) -> list[tuple[Item, str, str]]:
    """(item, video, method) of all videos; repetitions have the videos of what they repeat."""
    return [(item, video, method) for item in key.items.values() for video, method in item.videos.items()]


def _check_new(videos: Path, out: Path) -> None:
    for path in (out, key_path(out)):
        if path.exists() or path.is_symlink():
            raise UserError(f"{path} exists: choose another folder for the study, or remove the old study and its key")
    if out.resolve().is_relative_to(videos.resolve()):
        raise UserError(f"{out} is inside the folder of the videos: choose a folder outside of {videos}")


def find_methods(videos: Path) -> tuple[dict[str, Path], list[str]]:
    """The methods' folders by name, and the names of the videos that each of them has (without suffix), all sorted.

    Raises:
        UserError: if there are fewer than two methods, no videos, or not the same names in all folders.
    """
    if not videos.is_dir():
        raise UserError(f"{videos}: no such folder. It should contain a folder of videos for each method.")
    folders = sorted(path for path in videos.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:
        found = f"there is only one ({folders[0].name})" if folders else "there is none"
        raise UserError(f"{videos}: it should contain a folder of videos for each of at least two methods, but {found}")
    names = {folder: _names(folder) for folder in folders}
    for folder in folders:
        if not names[folder]:
            raise UserError(f"{folder}: there is no mp4 in this folder. Each method needs its videos.")
    every = set().union(*names.values())
    for folder in folders:
        if missing := sorted(every - names[folder]):
            raise UserError(f"{folder}: other methods have videos that are missing here: {_files(missing)}")
    return {folder.name: folder for folder in folders}, sorted(every)


def _names(folder: Path) -> set[str]:
    paths = folder.glob(f"*{VIDEO_SUFFIX}")
    return {path.stem for path in paths if not path.name.startswith(".") and not path.name.endswith(REGION_VIDEO_SUFFIX)}


def _files(names: Sequence[str]) -> str:
    return first_ten(f"{name}{VIDEO_SUFFIX}" for name in names)


def find_references(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """{name: image or video with this name}.

    Raises:
        UserError: if one is missing, there are several, or a browser cannot show it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. It should contain an image or a video for each item.")
    references = {}
    for name in names:
        found = [path for suffix in REFERENCE_SUFFIXES if (path := folder / f"{name}{suffix}").exists()]
        if len(found) != 1:
            several = f"both {found[0].name} and {found[1].name} exist: remove one" if found else "none of them exists"
            raise UserError(f"{folder}: the reference of {name} should be {name} with {_any(REFERENCE_SUFFIXES)}; {several}")
        references[name] = found[0]
        if found[0].suffix == VIDEO_SUFFIX:
            check_video(found[0], with_sound=False)
        elif isinstance(open_source(found[0]), VideoSource):
            raise UserError(f"{found[0]}: this is a video, not an image. Name it {name}{VIDEO_SUFFIX}.")
    return references


def _any(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def check_video(path: Path, with_sound: bool = True) -> None:
    """Checks that a video can be decoded to its end (parts in the middle are skipped) and shown in any browser.

    Raises:
        UserError: if it cannot, or has no sound and needs one.
    """
    with warnings.catch_warnings():  # damage causes a warning where a video is dubbed; none of it should be judged
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", ".*: the video is HDR")  # browsers convert its colours
        try:
            source = open_source(path)
            if not isinstance(source, VideoSource):
                raise UserError(f"{path}: this is a picture, not a video")
            source.frame(source.num_frames or 0)
        except UserWarning as warning:
            raise UserError(f"{warning}. Provide a complete video.") from warning
    with open_media(path, "a video") as container:
        video, sound = container.streams.video[0], next(iter(container.streams.audio), None)
        if _codec(video) not in VIDEO_CODECS:
            raise UserError(f"{path}: not every browser plays videos in {_codec(video)}. {CONVERT}")
        if video.pix_fmt not in PIXEL_FORMATS:
            raise UserError(f"{path}: not every browser plays pixels in {video.pix_fmt}. {CONVERT}")
        if sound is None and with_sound:
            raise UserError(f"{path}: the video has no sound, without which lip sync cannot be judged. Add its speech.")
        if sound is not None and _codec(sound) not in SOUND_CODECS:
            raise UserError(f"{path}: not every browser plays sound in {_codec(sound)}. {CONVERT}")


def _codec(stream: Any) -> str:
    return "an unknown codec" if stream.codec_context is None else stream.codec_context.codec.canonical_name


def _write(out: Path, key: Key, copies: dict[str, Path], reference_names: dict[str, str]) -> None:
    key_file = key_path(out)
    try:
        with atomic_path(out) as folder:
            with output_errors(out):
                (folder / "videos").mkdir(parents=True)
                for file in (resources.files("itjax.study") / "page").iterdir():
                    (folder / file.name).write_bytes(file.read_bytes())
                (folder / "study.js").write_text(f"const STUDY = {json.dumps(_page(key, reference_names), indent=1)};\n")
                for name in sorted(copies):  # in the order of random names, so that times of files do not tell the method
                    shutil.copyfile(copies[name], folder / "videos" / name)
            write_text(key_file, json.dumps(key_to_json(key), indent=1))
    except BaseException:
        if not out.exists():  # a key without its study would only be in the way of the next try
            key_file.unlink(missing_ok=True)
        raise


def _page(key: Key, reference_names: dict[str, str]) -> dict[str, Any]:
    """What the page knows: neither methods nor names of files, and everything sorted by random names."""
    items = [
        {"id": id_, "videos": sorted(item.videos), "repeats": item.repeats, "reference": reference_names.get(item.name, "")}
        for id_, item in sorted(key.items.items())
    ]
    questions = [question._asdict() for question in QUESTIONS]
    return {"study": key.study, "title": key.title, "questions": questions, "items": items}
