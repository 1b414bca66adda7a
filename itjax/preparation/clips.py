"""What of a video is usable: its clips between cuts, and what is left out with the reason. Runs no network."""

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
from itjax.media.containers import FRAME_RATE, SAMPLE_RATE, open_media
from itjax.media.picture_sizes import Size, choose_size
from itjax.media.resize import resize_and_crop
from itjax.preparation.scenes import find_scenes, pieces
from itjax.preparation.videos import Video, check_voices, read_boxes, read_caption

# F frames · h w latent grid

SILENCE = -50.0  # dBFS of a frame's sound, the whole at -23 LUFS: speech is 27 dB above it
LEAST_HEARD = 0.05  # of a clip's frames must be louder than that
SPOILT = FRAME_RATE  # frames after damage that are not trusted, at least: so far apart may frames lie in a file
SAMPLES = SAMPLE_RATE // FRAME_RATE  # of a frame

Track = Float32[np.ndarray, " _"]


class Limits(NamedTuple):
    """Frames of a clip, at least and at most."""

    least: int
    most: int


class Skipped(NamedTuple):
    """Frames that are not used (None: the whole file), and why."""

    start: int | None
    stop: int | None
    reason: str


class Scanned(NamedTuple):
    """A video: its picture size in the dataset, persons, caption, the frames of each clip, and what was left out."""

    name: str
    height: int
    width: int
    persons: int
    caption: str
    clips: tuple[tuple[int, int], ...]
    skipped: tuple[Skipped, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON can hold them; `scanned_from_json` is the way back."""
        return self._asdict() | {"skipped": [list(one) for one in self.skipped]}


def scanned_from_json(content: dict[str, Any]) -> Scanned:
    """The way back from `Scanned.to_json`.

    Raises:
        TypeError, KeyError, ValueError: for anything else.
    """
    clips = tuple((start, stop) for start, stop in content["clips"])
    skipped = tuple(Skipped(*one) for one in content["skipped"])
    return Scanned(**content | {"clips": clips, "skipped": skipped})


def scan(video: Video, table: SizeTable, limits: Limits, stop: threading.Event) -> Scanned:
    """Decodes the whole video once. What cannot be used is in the result; nothing is raised for a bad file.

    Raises:
        InterruptedError: once `stop` is set.
    """
    try:
        source = open_video(video)
        size = choose_size(*source.size, table)
        caption = read_caption(video)
        load_masks(video, source.size, size)
        open_region(video, source.size)
        tracks = load_tracks(video)
        spoilt: list[bool] = []
        scenes = find_scenes(watch(source, spoilt, stop))
    except InterruptedError:
        raise
    except (UserError, av.FFmpegError, OSError, ValueError) as error:  # the last three: what no check of ours foresaw
        reason = str(error).removeprefix(f"{video.path}: ")
        return Scanned(video.name, 0, 0, video.persons, "", (), (Skipped(None, None, reason),))
    heard = np.logical_or.reduce([is_heard(track, scenes[-1].stop) for track in tracks])
    found = [piece for scene in scenes for piece in pieces(scene, limits.least, limits.most)]
    judged = [(piece, why_not(piece, limits, heard, spoilt)) for piece in found]
    clips = tuple((piece.start, piece.stop) for piece, reason in judged if reason is None)
    skipped = tuple(Skipped(piece.start, piece.stop, reason) for piece, reason in judged if reason is not None)
    return Scanned(video.name, *size, video.persons, caption, clips, skipped)


def why_not(piece: range, limits: Limits, heard: Bool[np.ndarray, " F"], spoilt: list[bool]) -> str | None:
    """Why these frames make no clip, or None."""
    seconds = f"{len(piece) / FRAME_RATE:.2f} s"
    if len(piece) < limits.least:
        return f"too short: {len(piece)} frames ({seconds}) between cuts, at least {limits.least} are needed"
    if any(spoilt[piece.start : piece.stop]):
        return "unreadable: the file is damaged there"
    share = float(heard[piece.start : piece.stop].mean())
    if share < LEAST_HEARD:
        return f"silent: {share:.0%} of its frames are louder than {SILENCE:.0f} dBFS, at least {LEAST_HEARD:.0%} must be"
    return None


def watch(source: pictures.VideoSource, spoilt: list[bool], stop: threading.Event) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames up to the last one that decodes; notes in `spoilt` which of them are not what the video showed.

    After damage those are all up to the next keyframe, for each leans on the one before it.
    """
    number, known, keyframes, last = 0, 0, 0, None
    while not stop.is_set():
        frame = source.frame(number)
        if source.damaged > known:
            known, last = source.damaged, number
        if last is not None and number < last + SPOILT:
            keyframes = source.keyframes
        elif source.keyframes > keyframes:
            last = None
        spoilt.append(last is not None)
        yield frame
        if source.at_end:
            return
        number += 1
    raise InterruptedError("stopped")


def is_heard(track: Track, num_frames: int) -> Bool[np.ndarray, " {num_frames}"]:
    """Which frames of a track at its final loudness have sound. Beyond the track's end there is silence."""
    track = np.pad(track[: num_frames * SAMPLES], (0, max(0, num_frames * SAMPLES - len(track))))
    power = np.square(track.reshape(num_frames, SAMPLES)).mean(axis=1)
    return power > 10 ** (SILENCE / 10)


def open_video(video: Video) -> pictures.VideoSource:
    """The video, opened.

    Raises:
        UserError: where it is none, or its name is not UTF-8.
    """
    try:
        video.name.encode()
    except UnicodeEncodeError as error:  # the libraries that read pictures and sound cannot open it
        raise UserError(f"{video.path}: its name is not UTF-8: rename it") from error
    source = pictures.open_source(video.path)
    if not isinstance(source, pictures.VideoSource):
        raise UserError(f"{video.path}: a picture, not a video")
    return source


def load_tracks(video: Video) -> list[Track]:
    """The voice of each person, as a run of inference takes it.

    Raises:
        UserError: where voices are missing, or sound is missing or damaged.
    """
    check_voices(video)
    if video.persons == 1:
        check_sound(video.path)
    voices = video.voices if video.persons == 2 else (video.path,)
    return speech.prepare_tracks({f"person{i}": path for i, path in enumerate(voices, 1)})


def check_sound(path: Path) -> None:
    """Checks that all of a video's sound decodes.

    What comes after a piece that does not would be early by its length, and no longer fit the lips.

    Raises:
        UserError: where there is no sound, or a piece of it does not decode.
    """
    with open_media(path, "a video with sound") as container:
        if not container.streams.audio:
            raise UserError(f"{path}: silent: it has no sound")
        try:
            whole = not any(frame.is_corrupt for frame in container.decode(audio=0))
        except av.FFmpegError:
            whole = False
    if not whole:
        raise UserError(f"{path}: unreadable: its sound is damaged, and would no longer fit the lips")


def load_masks(video: Video, source_size: Size, size: Size) -> Float32[np.ndarray, "G h w"] | None:
    """Where two persons are, on the latent grid; None with one person.

    Raises:
        UserError: where the boxes cannot be read, or do not fit the picture.
    """
    if video.persons == 1:
        return None
    return persons.person_masks(size, source_size, read_boxes(video), 2)


def open_region(video: Video, source_size: Size) -> pictures.ImageSource | pictures.VideoSource | None:
    """What is bright where the loss may count more; None where there is no such file.

    Raises:
        UserError: where it cannot be read, or is of another size than the video.
    """
    if video.region is None:
        return None
    region = pictures.open_source(video.region)
    if region.size != source_size:
        raise UserError(
            f"{video.region.name} is {region.size[0]}x{region.size[1]} pixels, its video {source_size[0]}x{source_size[1]}: "
            "make it of the same size"
        )
    return region


def load_region(
    region: pictures.ImageSource | pictures.VideoSource, start: int, stop: int, size: Size
) -> Float32[np.ndarray, "F h w"]:
    """How bright each latent cell is in frames start..stop-1: 0..1."""

    def cells(frame: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "h w"]:
        bright = resize_and_crop(frame, size).mean(axis=2, dtype=np.float32) / 255
        return bright.reshape(size[0] // LATENT_STRIDE, LATENT_STRIDE, size[1] // LATENT_STRIDE, LATENT_STRIDE).mean(
            axis=(1, 3)
        )

    if region.is_still:
        return np.broadcast_to(cells(region.frame(0)), (stop - start, size[0] // LATENT_STRIDE, size[1] // LATENT_STRIDE))
    return np.stack([cells(region.frame(i)) for i in range(start, stop)])


def load_pixels(source: pictures.VideoSource, start: int, stop: int, size: Size) -> UInt8[np.ndarray, "F H W 3"]:
    """Frames start..stop-1 at `size`."""
    return np.stack([resize_and_crop(source.frame(i), size) for i in range(start, stop)])
