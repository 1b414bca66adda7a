"""Speech: converts audio files to mono tracks at 16 kHz for the speech encoder, and to the audio of the finished video.

Handles files, loudness and who speaks when; independent of the networks. Formats that soundfile supports are read the way
librosa does, so that a track equals the official code's bit for bit; others (m4a, videos) are read with FFmpeg's libraries.
"""

import itertools
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import av
import librosa
import numpy as np
import soundfile
from jaxtyping import Float32

from itjax.errors import UserError
from itjax.input_files import PathLike
from itjax.media import sound_headers
from itjax.media.containers import (
    FRAME_RATE,
    TRUNCATION_TOLERANCE,
    declared_seconds,
    open_media,
    sound_stream,
    start_delay,
)
from itjax.media.containers import SAMPLE_RATE as RATE
from itjax.media.limits import COMMAND_LINE, Limits, check_media_file, check_sound_format, check_sound_length
from itjax.media.sound_track import SoundTrack

LOUDNESS = -23.0  # LUFS
LOUDNESS_BLOCK = RATE * 4 // 10  # minimum number of samples for measuring loudness
AUDIO_TYPES = ("para", "add")
SOUND_RATE = 48_000  # Hz, of the finished video
# Containers that store the time of each packet. Elsewhere (AVI, ASF), FFmpeg estimates it, at times wrongly.
TIMED = {"mp4", "matroska", "mpegts", "flv"}
SHORTEST_GAP, LONGEST_GAP = 0.1, 60.0  # seconds between two frames: less is jitter, more is a wrong time
READ = 1 << 20  # samples read at a time
LOUDEST = 1 << 16  # times full scale: more than 16-bit numbers as floats. At a million, the AAC encoder does not return

Track = Float32[np.ndarray, " n"]
Block = Float32[np.ndarray, "n c"]


def load_track(path: PathLike, limits: Limits = COMMAND_LINE) -> Track:
    """Loads a file's audio as mono at 16 kHz, float32 [n], n >= 1.

    Raises:
        UserError: if the file is missing, truncated, not an audio file, has no audio track or no samples, a sample is not a
            finite number or extremely loud, or the limits are exceeded.
    """
    check_media_file(path, "an audio file or a video with audio", limits)
    blocks, rate = _read_with_soundfile(path, limits) or _read_with_av(path, limits)
    track = np.concatenate(blocks)
    if rate == RATE:  # librosa takes seconds to load
        return track
    return librosa.resample(track, orig_sr=rate, target_sr=RATE, res_type="soxr_hq")


def normalise_loudness(track: Track) -> Track:
    """Normalises the track to -23 LUFS (BS.1770), float32 [n]. Silence and tracks beyond ±100 LUFS are not changed.

    A track shorter than the measurement block of 0.4 s is repeated for the measurement.
    """
    import pyloudnorm  # imports scipy.signal, a third of the time that `itjax infer --help` took

    measured = track if len(track) >= LOUDNESS_BLOCK else np.resize(track, LOUDNESS_BLOCK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # mean of an empty array if all blocks are below the gate
        loudness = pyloudnorm.Meter(RATE).integrated_loudness(measured)
    if not abs(loudness) <= 100:
        return track
    gain = np.power(10.0, (LOUDNESS - loudness) / 20.0)  # float64, as in pyloudnorm: rounded to float32 only at the end
    return (gain * track).astype(np.float32)


def prepare_tracks(
    paths: Mapping[str, PathLike | None], audio_type: str | None = None, limits: Limits = COMMAND_LINE
) -> list[Track]:
    """Tracks of one or two persons (name -> file), each at -23 LUFS, [n_i], sorted by name.

    "para" (default): both start at the beginning. "add": the second person speaks after the first, and each is silent
    while the other speaks. If one of two persons has no file (None), that person is always silent.

    Raises:
        UserError: if `audio_type` is unknown, the number of persons is not 1 or 2, and as in `load_track`.
    """
    files = _in_order(paths, audio_type)
    tracks = [normalise_loudness(load_track(path, limits)) for path in files if path is not None]
    if len(tracks) < len(files):
        return [np.zeros_like(tracks[0]) if path is None else tracks[0] for path in files]
    if audio_type == "add" and len(tracks) == 2:
        first, second = tracks
        return [np.concatenate([first, np.zeros_like(second)]), np.concatenate([np.zeros_like(first), second])]
    return tracks


def sound_track(paths: Mapping[str, PathLike | None], audio_type: str | None = None) -> SoundTrack:
    """Streams the files' original audio at 48 kHz: mono if all files are mono, else stereo; order as in `prepare_tracks`.

    "para" gives the sum, clipped to -1..1. Damaged parts are skipped with a warning.

    Raises:
        UserError: as in `prepare_tracks`, but only the headers are checked, so call that first.
    """
    files = [path for path in _in_order(paths, audio_type) if path is not None]
    channels = max(_channels(path) for path in files)

    def blocks() -> Iterator[Block]:
        tracks = [_as_channels(_decoded(path, SOUND_RATE), channels) for path in files]
        if len(tracks) == 2 and audio_type != "add":
            return _mixed(*tracks)
        return itertools.chain(*tracks)

    return SoundTrack(SOUND_RATE, channels, blocks)


def _in_order(paths: Mapping[str, PathLike | None], audio_type: str | None) -> list[PathLike | None]:
    if audio_type is not None and audio_type not in AUDIO_TYPES:
        raise UserError(
            f'audio_type "{audio_type}" is unknown. Use "para" (both persons speak from the start) or "add" (the second '
            "speaks after the first)."
        )
    if not 1 <= len(paths) <= 2:
        raise UserError(f"the request names {len(paths)} persons with audio ({', '.join(paths)}). Specify one or two.")
    if all(path is None for path in paths.values()):
        raise UserError("cond_audio: nobody has an audio file. Specify one for at least one person.")
    return [paths[name] for name in sorted(paths)]


def _read_with_soundfile(path: PathLike, limits: Limits) -> tuple[list[Track], int] | None:
    """Mono blocks and their sample rate; None if soundfile does not support the format or finds no samples."""
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: the file name ends in .raw
        return None
    blocks, read = [], 0
    with file:
        check_sound_format(path, file.samplerate, file.channels, limits)
        try:
            while len(block := file.read(READ, dtype="float32")):
                _check_samples(path, block, read, file.samplerate)
                blocks.append(block if block.ndim == 1 else librosa.to_mono(block.T))
                read += len(block)
                check_sound_length(path, read / file.samplerate, limits)
        except soundfile.LibsndfileError as error:
            raise UserError(f"{path}: the audio is damaged or cut off. Use an intact copy.") from error
        declared = sound_headers.declared_seconds(path, file, read)
        if declared is not None and declared - read / file.samplerate > 1 / FRAME_RATE:
            raise UserError(_cut_off(path, declared, read / file.samplerate))
        return (blocks, file.samplerate) if blocks else None


def _read_with_av(path: PathLike, limits: Limits) -> tuple[list[Track], int]:
    with open_media(path, "audio") as container:
        stream = sound_stream(path, container)
        _tell_of_others(path, container, stream)
        rate, declared = stream.rate, declared_seconds(container, stream)
        check_sound_format(path, rate or 0, stream.codec_context.channels, limits)
        delay = start_delay(container, stream)
    blocks, read = [], 0
    for block in _decoded(path, rate):
        _check_samples(path, block, read, rate)
        blocks.append(block.mean(axis=1))
        read += len(block)
        check_sound_length(path, read / rate, limits)
    if read == 0:
        raise UserError(f"{path}: the file contains no audio samples. Is it cut off?")
    if declared is not None and declared - (read / rate - delay) > TRUNCATION_TOLERANCE:
        raise UserError(_cut_off(path, declared, read / rate))
    return blocks, rate


def _tell_of_others(path: PathLike, container: Any, stream: Any) -> None:
    """Warns if there are audio tracks besides the one used: the voice may be in another one."""
    streams = container.streams.audio
    if len(streams) > 1:
        warnings.warn(
            f"{path}: of {len(streams)} audio tracks, number {streams.index(stream) + 1} is used, as in players. To use "
            "another one, extract it: ffmpeg -i IN -map 0:a:0 OUT.wav (0:a:0 is number 1)",
            stacklevel=2,
        )


def _cut_off(path: PathLike, declared: float, actual: float) -> str:
    return (
        f"{path}: the file is cut off: its header declares {declared:.2f} s of audio, but only {actual:.2f} s are present. "
        "Use an intact copy, or save the remaining audio under a new name with an audio editor."
    )


def _check_samples(path: PathLike, block: np.ndarray, before: int, rate: int) -> None:
    loudest = np.abs(block).reshape(len(block), -1).max(axis=1)
    bad = ~(loudest <= LOUDEST)
    if bad.any():
        time, value = (before + int(bad.argmax())) / rate, loudest[bad.argmax()]
        what = f"{value:g} times full scale" if np.isfinite(value) else "not a finite number (NaN or infinity)"
        raise UserError(f"{path}: the sample at {time:.3f} s is {what}. Export it again.")


def _channels(path: PathLike) -> int:
    """Number of channels after decoding: 1 or 2."""
    with open_media(path, "audio") as container:
        return min(sound_stream(path, container).codec_context.channels, 2)


def _decoded(path: PathLike, rate: int) -> Iterator[Block]:
    """Decodes the file's audio from time zero at `rate`, block by block: mono stays mono, anything else becomes stereo.

    Where audio is missing between two times, as recorders of calls and screens leave it out, there is silence.
    """
    with open_media(path, "audio") as container:
        stream = sound_stream(path, container)
        layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        silence = round(start_delay(container, stream) * rate)
        resampler: Any = None
        input_format = None  # the resampler's
        for frame, gap in _with_gaps(container, _frames(path, container, stream)):
            if gap or input_format != (frame.format.name, frame.layout.name, frame.sample_rate):  # or at the start
                if resampler:
                    yield from _arrays(resampler.resample(None))
                resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
                input_format = (frame.format.name, frame.layout.name, frame.sample_rate)
                silence += round(gap * rate)
            try:
                resampled = resampler.resample(frame)
            except (av.FFmpegError, ValueError) as error:  # e.g. 9 channels: FFmpeg does not know where their speakers are
                raise UserError(
                    f"{path}: {frame.layout.nb_channels} channels of {frame.sample_rate} Hz cannot be converted. Mix the "
                    "audio down to stereo at 48 kHz."
                ) from error
            for block in _arrays(resampled):
                for start in range(0, silence, READ):
                    yield np.zeros((min(READ, silence - start), block.shape[1]), np.float32)
                silence = 0
                yield block
        if resampler:
            yield from _arrays(resampler.resample(None))


def _frames(path: PathLike, container: Any, stream: Any) -> Iterator[Any]:
    """All decoded frames. Packets that fail to decode are skipped with a warning: one bad byte must not cost an hour."""
    warned = started = False
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            if not started:
                raise UserError(f"{path}: the audio is damaged ({error.strerror}). Use an intact copy.") from error
            warnings.warn(f"{path}: the audio is damaged, and ends at the damage", stacklevel=2)
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if not warned:
                warnings.warn(f"{path}: damaged parts of the audio are skipped", stacklevel=2)
            warned, frames = True, []
        started = started or bool(frames)
        yield from frames


def _with_gaps(container: Any, frames: Iterator[Any]) -> Iterator[tuple[Any, float]]:
    """The frames without their times, each with the seconds of missing audio before it, usually 0."""
    timed = not TIMED.isdisjoint(container.format.name.split(","))
    end = None  # of the frames so far, in seconds; None: not known
    for frame in frames:
        gap = 0.0
        if timed and frame.time is not None:
            time = frame.time if end is None else max(end, frame.time)
            if end is not None and SHORTEST_GAP < time - end <= LONGEST_GAP:
                gap = time - end
            end = time
        if end is not None:
            end += frame.samples / frame.sample_rate
        frame.pts = None  # samples are counted instead: jitter in a file's timestamps would make the resampler fail
        yield frame, gap


def _arrays(frames: list[Any]) -> Iterator[Block]:
    for frame in frames:
        if frame.samples:
            yield np.ascontiguousarray(frame.to_ndarray().T)


def _as_channels(blocks: Iterator[Block], channels: int) -> Iterator[Block]:
    """Copies mono to both channels if stereo is needed, at full level; FFmpeg's own mixing attenuates it by 3 dB."""
    for block in blocks:
        yield block if block.shape[1] == channels else np.repeat(block, channels, axis=1)


def _mixed(first: Iterator[Block], second: Iterator[Block]) -> Iterator[Block]:
    """The sum of two audio streams, clipped to -1..1; after the shorter one ends, the longer one continues alone."""
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
