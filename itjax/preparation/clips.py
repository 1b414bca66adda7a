"""Scans a video for usable clips between cuts, and for the frames to skip, with the reason. Runs no network."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from itjax.conditioning import persons
from itjax.conditioning.persons import LATENT_STRIDE
from itjax.config import SizeTable
from itjax.errors import UserError
from itjax.media import pictures, speech
from itjax.media.containers import FRAME_RATE, SAMPLE_RATE, open_media, sound_stream
from itjax.media.picture_sizes import Size, choose_size
from itjax.media.resize import resize_and_crop
from itjax.preparation.scenes import find_scenes, split_scene
from itjax.preparation.videos import Video, check_companions, read_boxes, read_caption

# F frames · h w latent grid

SILENCE_DBFS = -50.0  # dBFS of a frame's audio, with the whole track at -23 LUFS: speech is 27 dB louder
MIN_AUDIBLE_FRACTION = 0.05  # fraction of a clip's frames that must be louder than SILENCE_DBFS
# minimum number of frames that count as damaged where damage is detected: frames may be stored this far apart in a file
MIN_DAMAGED_FRAMES = FRAME_RATE
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE

Track = Float32[np.ndarray, " _"]


class Limits(NamedTuple):
    """Minimum and maximum number of frames of a clip."""

    min_frames: int
    max_frames: int


class Skipped(NamedTuple):
    """A range of skipped frames (None: the whole file), and the reason."""

    start: int | None
    stop: int | None
    reason: str


class ScannedVideo(NamedTuple):
    """The scan of a video: its size in the dataset, persons, caption, frame ranges of the clips, and skipped frames."""

    name: str
    height: int
    width: int
    persons: int
    caption: str
    clips: tuple[tuple[int, int], ...]
    skipped: tuple[Skipped, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON-serialisable values; `scanned_from_json` is the inverse."""
        return self._asdict() | {"skipped": [list(entry) for entry in self.skipped]}


def scanned_from_json(content: dict[str, Any]) -> ScannedVideo:
    """The inverse of `ScannedVideo.to_json`.

    Raises:
        TypeError, KeyError, ValueError: if `content` was not produced by `to_json`.
    """
    clips = tuple((start, stop) for start, stop in content["clips"])
    skipped = tuple(Skipped(*entry) for entry in content["skipped"])
    return ScannedVideo(**content | {"clips": clips, "skipped": skipped})


def scan(video: Video, table: SizeTable, limits: Limits, stop: threading.Event) -> ScannedVideo:
    """Decodes the whole video once. Unusable parts or files are reported in the result, not raised as errors.

    Raises:
        InterruptedError: if `stop` is set.
    """
    try:
        source = open_video(video)
        size = choose_size(*source.size, table)
        caption = read_caption(video)
        load_masks(video, source.size, size)
        open_region(video, source.size)
        tracks = load_tracks(video)
        damaged: list[bool] = []
        scenes = find_scenes(decode_frames(source, damaged, stop))
    except InterruptedError:
        raise
    except (UserError, av.FFmpegError, OSError, ValueError) as error:  # the last three: problems not covered by our checks
        reason = str(error).removeprefix(f"{video.path}: ")
        return ScannedVideo(video.name, 0, 0, video.persons, "", (), (Skipped(None, None, reason),))
    audible = np.logical_or.reduce([audible_frames(track, scenes[-1].stop) for track in tracks])
    candidates = [part for scene in scenes for part in split_scene(scene, limits.min_frames, limits.max_frames)]
    checked = [(part, skip_reason(part, limits, audible, damaged)) for part in candidates]
    clips = tuple((part.start, part.stop) for part, reason in checked if reason is None)
    skipped = tuple(Skipped(part.start, part.stop, reason) for part, reason in checked if reason is not None)
    return ScannedVideo(video.name, *size, video.persons, caption, clips, skipped)


def skip_reason(part: range, limits: Limits, audible: Bool[np.ndarray, " F"], damaged: list[bool]) -> str | None:
    """The reason why these frames are not a usable clip, or None."""
    seconds = f"{len(part) / FRAME_RATE:.2f} s"
    if len(part) < limits.min_frames:
        return f"too short: {len(part)} frames ({seconds}) between cuts, at least {limits.min_frames} are required"
    if any(damaged[part.start : part.stop]):
        return "unreadable: the file is damaged here"
    fraction = float(audible[part.start : part.stop].mean())
    if fraction < MIN_AUDIBLE_FRACTION:
        return (
            f"silent: {fraction:.0%} of its frames are louder than {SILENCE_DBFS:.0f} dBFS, "
            f"at least {MIN_AUDIBLE_FRACTION:.0%} are required"
        )
    return None


def decode_frames(
    source: pictures.VideoSource, damaged: list[bool], stop: threading.Event
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Yields the frames up to the last one that decodes, and appends to `damaged` whether each one is damaged.

    After damage, all frames up to the next keyframe count as damaged, because each is predicted from the previous one.
    """
    number, damage_count, keyframes, last_damaged = 0, 0, 0, None
    while not stop.is_set():
        frame = source.frame(number)
        if source.damaged > damage_count:
            damage_count, last_damaged = source.damaged, number
        if last_damaged is not None and number < last_damaged + MIN_DAMAGED_FRAMES:
            keyframes = source.keyframes
        elif source.keyframes > keyframes:
            last_damaged = None
        damaged.append(last_damaged is not None)
        yield frame
        if source.at_end:
            return
        number += 1
    raise InterruptedError("stopped")


def audible_frames(track: Track, num_frames: int) -> Bool[np.ndarray, " {num_frames}"]:
    """Which frames of a loudness-normalised track are audible. After the end of the track there is silence."""
    track = np.pad(track[: num_frames * SAMPLES_PER_FRAME], (0, max(0, num_frames * SAMPLES_PER_FRAME - len(track))))
    power = np.square(track.reshape(num_frames, SAMPLES_PER_FRAME)).mean(axis=1)
    return power > 10 ** (SILENCE_DBFS / 10)


def open_video(video: Video) -> pictures.VideoSource:
    """Opens a video.

    Raises:
        UserError: if it is not a readable video, or its name is not UTF-8.
    """
    try:
        video.name.encode()
    except UnicodeEncodeError as error:  # the libraries that read images and audio cannot open it
        raise UserError(f"{video.path}: the file name is not UTF-8: rename the file") from error
    source = pictures.open_source(video.path)
    if not isinstance(source, pictures.VideoSource):
        raise UserError(f"{video.path}: an image, not a video")
    return source


def load_tracks(video: Video) -> list[Track]:
    """The speech track of each person, preprocessed as for inference.

    Raises:
        UserError: if the audio of a person is missing or damaged.
    """
    check_companions(video)
    if video.persons == 1:
        check_audio(video.path)
    voices = video.voices if video.persons == 2 else (video.path,)
    return speech.prepare_tracks({f"person{i}": path for i, path in enumerate(voices, 1)})


def check_audio(path: Path) -> None:
    """Checks that a video's audio decodes completely.

    Audio after a part that does not decode would be early by the length of that part, and out of sync with the lips.

    Raises:
        UserError: if there is no audio, or a part of it does not decode.
    """
    with open_media(path, "a video with audio") as container:
        if not container.streams.audio:
            raise UserError(f"{path}: silent: the video has no audio")
        try:
            intact = not any(frame.is_corrupt for frame in container.decode(sound_stream(path, container)))
        except av.FFmpegError:
            intact = False
    if not intact:
        raise UserError(f"{path}: unreadable: the audio is damaged and would be out of sync with the lips")


def load_masks(video: Video, source_size: Size, size: Size) -> Float32[np.ndarray, "G h w"] | None:
    """Masks of two persons and the background on the latent grid; None for one person.

    Raises:
        UserError: if the boxes cannot be read, or do not fit the image.
    """
    if video.persons == 1:
        return None
    return persons.person_masks(size, source_size, read_boxes(video), 2)


def open_region(video: Video, source_size: Size) -> pictures.ImageSource | pictures.VideoSource | None:
    """Opens the region file, which is bright where the loss may have a larger weight; None if there is no such file.

    Raises:
        UserError: if it cannot be read, or its size differs from the video's.
    """
    if video.region is None:
        return None
    region = pictures.open_source(video.region)
    if region.size != source_size:
        raise UserError(
            f"{video.region.name} is {region.size[0]}x{region.size[1]} pixels, but the video has "
            f"{source_size[0]}x{source_size[1]}: make them the same size"
        )
    return region


def load_region(
    region: pictures.ImageSource | pictures.VideoSource, start: int, stop: int, size: Size
) -> Float32[np.ndarray, "F h w"]:
    """Mean brightness (0..1) of each latent cell in frames start..stop-1."""

    def cells(frame: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "h w"]:
        bright = resize_and_crop(frame, size).mean(axis=2, dtype=np.float32) / 255
        return bright.reshape(size[0] // LATENT_STRIDE, LATENT_STRIDE, size[1] // LATENT_STRIDE, LATENT_STRIDE).mean(
            axis=(1, 3)
        )

    if region.is_still:
        return np.broadcast_to(cells(region.frame(0)), (stop - start, size[0] // LATENT_STRIDE, size[1] // LATENT_STRIDE))
    return np.stack([cells(region.frame(i)) for i in range(start, stop)])


def load_pixels(source: pictures.VideoSource, start: int, stop: int, size: Size) -> UInt8[np.ndarray, "F H W 3"]:
    """Frames start..stop-1, resized and cropped to `size`."""
    return np.stack([resize_and_crop(source.frame(i), size) for i in range(start, stop)])
