"""Speech: from sound files to mono tracks at 16 kHz for the speech encoder, and to the sound of the finished video.

Knows files, loudness and who speaks when; knows no network. What soundfile reads is read as librosa does, so that a
track equals the official code's to the bit; the rest (m4a, the sound of a video) goes through FFmpeg's libraries.
"""

import itertools
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import av
import librosa
import numpy as np
import pyloudnorm
import soundfile
from jaxtyping import Float32

from itjax.errors import UserError
from itjax.media.containers import FRAME_RATE, SLACK, PathLike, check_file, declared_seconds, open_media, start_delay
from itjax.media.containers import SAMPLE_RATE as RATE
from itjax.media.sound_track import SoundTrack

LOUDNESS = -23.0  # LUFS
LOUDNESS_BLOCK = RATE * 4 // 10  # samples: what the loudness measure needs at least
AUDIO_TYPES = ("para", "add")
SOUND_RATE = 48_000  # Hz, of the finished video
READ = 1 << 20  # samples read at a time

Track = Float32[np.ndarray, " n"]
Block = Float32[np.ndarray, "n c"]


def load_track(path: PathLike) -> Track:
    """A file's sound as mono at 16 kHz, float32 [n], n >= 1.

    Raises:
        UserError: where the file is missing, not sound, cut off, without a sound track, without a sample, or where a
            sample is not a finite number.
    """
    check_file(path, "a sound file, or a video with sound")
    blocks, rate = _read_with_soundfile(path) or _read_with_av(path)
    return librosa.resample(np.concatenate(blocks), orig_sr=rate, target_sr=RATE, res_type="soxr_hq")


def normalise_loudness(track: Track) -> Track:
    """The track at -23 LUFS (BS.1770), float32 [n]. Silence, and what measures beyond ±100 LUFS, is left as it is.

    A track shorter than the measure's block of 0.4 s is measured as if it went on repeating itself.
    """
    measured = track if len(track) >= LOUDNESS_BLOCK else np.resize(track, LOUDNESS_BLOCK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a track whose every block is below the gate: mean of nothing
        loudness = pyloudnorm.Meter(RATE).integrated_loudness(measured)
    if not abs(loudness) <= 100:
        return track
    gain = np.power(10.0, (LOUDNESS - loudness) / 20.0)  # float64, as in pyloudnorm: rounded to float32 once, at the end
    return (gain * track).astype(np.float32)


def prepare_tracks(paths: Mapping[str, PathLike | None], audio_type: str | None = None) -> list[Track]:
    """The tracks of one or two persons (name -> file, persons in the order of their names), each at -23 LUFS, [n_i].

    "para" (default): both from the start. "add": the second person speaks after the first, each silent meanwhile. Where
    one of two has no file (None), that one is silent throughout.

    Raises:
        UserError: for an unknown `audio_type`, for no person or more than two, and as `load_track` does.
    """
    files = _in_order(paths, audio_type)
    tracks = [normalise_loudness(load_track(path)) for path in files if path is not None]
    if len(tracks) < len(files):
        return [np.zeros_like(tracks[0]) if path is None else tracks[0] for path in files]
    if audio_type == "add" and len(tracks) == 2:
        first, second = tracks
        return [np.concatenate([first, np.zeros_like(second)]), np.concatenate([np.zeros_like(first), second])]
    return tracks


def sound_track(paths: Mapping[str, PathLike | None], audio_type: str | None = None) -> SoundTrack:
    """The files' own sound at 48 kHz, streamed: mono where all are mono, else stereo; persons as in `prepare_tracks`.

    "para" is the sum, limited to -1..1. Damage inside is left out with a warning.

    Raises:
        UserError: as `prepare_tracks` does, but only the headers are read; so call that first.
    """
    files = [path for path in _in_order(paths, audio_type) if path is not None]
    channels = max(_channels(path) for path in files)

    def blocks() -> Iterator[Block]:
        sounds = [_as_channels(_decoded(path, SOUND_RATE), channels) for path in files]
        if len(sounds) == 2 and audio_type != "add":
            return _mixed(*sounds)
        return itertools.chain(*sounds)

    return SoundTrack(SOUND_RATE, channels, blocks)


def _in_order(paths: Mapping[str, PathLike | None], audio_type: str | None) -> list[PathLike | None]:
    if audio_type is not None and audio_type not in AUDIO_TYPES:
        raise UserError(
            f'audio_type "{audio_type}" is unknown. Write "para" (both persons speak from the start) or "add" (the '
            "second after the first)."
        )
    if not 1 <= len(paths) <= 2:
        raise UserError(f"cond_audio names {len(paths)} persons ({', '.join(paths)}). Name one or two.")
    if all(path is None for path in paths.values()):
        raise UserError("cond_audio: nobody has a sound file. Name one for at least one person.")
    return [paths[name] for name in sorted(paths)]


def _read_with_soundfile(path: PathLike) -> tuple[list[Track], int] | None:
    """Mono blocks and their rate, or None where soundfile does not know the format or finds nothing in it."""
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: a name that ends in .raw
        return None
    blocks, read = [], 0
    with file:
        try:
            while len(block := file.read(READ, dtype="float32")):
                _check_finite(path, block, read, file.samplerate)
                blocks.append(librosa.to_mono(block.T))
                read += len(block)
        except soundfile.LibsndfileError as error:
            raise UserError(f"{path}: the sound is damaged or cut off. Take an undamaged copy.") from error
        _check_whole(path, file, read)
        return (blocks, file.samplerate) if blocks else None


def _check_whole(path: PathLike, file: soundfile.SoundFile, read: int) -> None:
    """UserError where the header (WAV, AIFF, AU) promises more than one video frame more of sound than is there.

    libsndfile reads what there is and notes the difference in its log alone. Sizes near the field's limit are what
    programs write that do not know the length beforehand.
    """
    sizes = re.search(r"^\s*(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    promised, there = map(int, sizes.groups()) if sizes else (0, 0)
    if there == 0 or promised >= 0x7FFF0000:
        return
    seconds = read / file.samplerate
    if seconds * (promised - there) / there > 1 / FRAME_RATE:
        raise UserError(_cut_off(path, seconds * promised / there, seconds))


def _read_with_av(path: PathLike) -> tuple[list[Track], int]:
    with open_media(path, "sound") as container:
        stream = _sound_stream(path, container)
        rate, declared = stream.rate, declared_seconds(container, stream)
        delay = start_delay(container, stream)
    blocks, read = [], 0
    for block in _decoded(path, rate):
        _check_finite(path, block, read, rate)
        blocks.append(block.mean(axis=1))
        read += len(block)
    if read == 0:
        raise UserError(f"{path}: the file holds no sound: not one sample. Is it cut off?")
    if declared is not None and declared - (read / rate - delay) > SLACK:
        raise UserError(_cut_off(path, declared, read / rate))
    return blocks, rate


def _cut_off(path: PathLike, promised: float, there: float) -> str:
    return (
        f"{path}: the file is cut off: its header promises {promised:.2f} s of sound, {there:.2f} s are there. "
        "Take a whole copy, or save what there is under a new name with a sound editor."
    )


def _check_finite(path: PathLike, block: np.ndarray, before: int, rate: int) -> None:
    bad = ~np.isfinite(block if block.ndim == 1 else block.sum(axis=1))
    if bad.any():
        at = (before + int(bad.argmax())) / rate
        raise UserError(f"{path}: the sample at {at:.3f} s is not a finite number (NaN or infinity). Export the sound anew.")


def _sound_stream(path: PathLike, container: Any) -> Any:
    if not container.streams.audio:
        raise UserError(f"{path}: the file has no sound track. Give a sound file, or a video with sound.")
    return container.streams.audio[0]


def _channels(path: PathLike) -> int:
    """1 or 2: what the file's sound becomes."""
    with open_media(path, "sound") as container:
        return min(_sound_stream(path, container).codec_context.channels, 2)


def _decoded(path: PathLike, rate: int) -> Iterator[Block]:
    """The file's sound from its time zero at `rate`, block by block: mono stays mono, all else is made stereo."""
    with open_media(path, "sound") as container:
        stream = _sound_stream(path, container)
        layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        silence = round(start_delay(container, stream) * rate)
        resampler: Any = None
        form = None  # what the resampler was made for
        for frame in _frames(path, container, stream):
            if form != (frame.format.name, frame.layout.name, frame.sample_rate):  # the first, or it changes on the way
                if resampler:
                    yield from _arrays(resampler.resample(None))
                resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
                form = (frame.format.name, frame.layout.name, frame.sample_rate)
            for block in _arrays(resampler.resample(frame)):
                for start in range(0, silence, READ):
                    yield np.zeros((min(READ, silence - start), block.shape[1]), np.float32)
                silence = 0
                yield block
        if resampler:
            yield from _arrays(resampler.resample(None))


def _frames(path: PathLike, container: Any, stream: Any) -> Iterator[Any]:
    """All decoded frames. What does not decode is left out with a warning: one bad byte shall not cost an hour."""
    warned = False
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if not warned:
                warnings.warn(f"{path}: damaged pieces of sound are left out", stacklevel=2)
            warned, frames = True, []
        for frame in frames:
            frame.pts = None  # we count samples: a file's jittering times must not make the resampler object
            yield frame


def _arrays(frames: list[Any]) -> Iterator[Block]:
    for frame in frames:
        if frame.samples:
            yield np.ascontiguousarray(frame.to_ndarray().T)


def _as_channels(blocks: Iterator[Block], channels: int) -> Iterator[Block]:
    """Mono on both sides where stereo is asked for: at full level, which FFmpeg's own mixing lowers by 3 dB."""
    for block in blocks:
        yield block if block.shape[1] == channels else np.repeat(block, channels, axis=1)


def _mixed(first: Iterator[Block], second: Iterator[Block]) -> Iterator[Block]:
    """The sum of two sounds, limited to -1..1; the longer one goes on alone."""
    a, b = next(first, None), next(second, None)
    while a is not None and b is not None:
        n = min(len(a), len(b))
        yield np.clip(a[:n] + b[:n], -1.0, 1.0)
        a = a[n:] if len(a) > n else next(first, None)
        b = b[n:] if len(b) > n else next(second, None)
    rest, tail = (first, a) if b is None else (second, b)
    while tail is not None:
        yield tail
        tail = next(rest, None)
