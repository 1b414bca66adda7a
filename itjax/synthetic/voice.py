"""Speech synthesis with the time of every phoneme, by espeak-ng, whose library and data come with a Python package.

The command-line tool does not print the times for all voices; the library reports them during synthesis. It speaks for one
thread at a time: others wait.
"""

import _ctypes
import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import librosa
import numpy as np
from jaxtyping import Float32

from itjax.errors import UserError
from itjax.media.containers import SAMPLE_RATE

EQUALIZER_HZ = (150.0, 700.0, 2000.0, 5000.0)  # the bands of an equalizer; between them the gain changes smoothly
# from espeak-ng's speak_lib.h
_SYNCHRONOUS, _PHONEME_EVENTS, _IPA, _DO_NOT_EXIT = 2, 1, 2, 0x8000
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_EVENT_END, _EVENT_PHONEME, _BY_CHARACTER, _UTF8 = 0, 7, 1, 1


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int), ("identifier", ctypes.c_uint), ("text_position", ctypes.c_int), ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int), ("sample", ctypes.c_int), ("user_data", ctypes.c_void_p), ("id", _Id),
    )  # fmt: skip


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class VoiceSettings(NamedTuple):
    """Manner of speaking: espeak-ng voice, words per minute (80 to 450), pitch and pitch range (0 to 99).

    Then what is done to the sound: played `speed` times as fast, with pitch and formants; `equalizer`: gains in dB at
    `EQUALIZER_HZ`, none if empty.
    """

    voice: str
    rate: int = 160
    pitch: int = 50
    range: int = 50
    speed: float = 1.0
    equalizer: tuple[float, ...] = ()


class Phoneme(NamedTuple):
    """An IPA symbol and its time in seconds. "" is silence."""

    symbol: str
    start: float
    stop: float


class Speech(NamedTuple):
    """Sound at 16 kHz in -1..1, and its phonemes."""

    samples: Float32[np.ndarray, " n"]
    phonemes: tuple[Phoneme, ...]

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.samples) / SAMPLE_RATE


_lock = threading.Lock()


def _unlock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock)  # the thread that held it is not in the child


@contextlib.contextmanager
def _library() -> Iterator[tuple[ctypes.CDLL, int]]:
    """espeak-ng and its sample rate; loaded anew each time, as earlier speech would change what it says next."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise UserError('speech synthesis needs espeak-ng: pip install "itjax[synthetic]"') from error
    library, folder = ctypes.CDLL(espeakng_loader.get_library_path()), espeakng_loader.get_data_path()
    try:
        ctypes.CDLL(None).srand(1)  # its noise comes from the C library's generator
        rate = library.espeak_Initialize(_SYNCHRONOUS, 0, folder.encode(), _PHONEME_EVENTS | _IPA | _DO_NOT_EXIT)
        if rate <= 0:
            raise UserError(f"espeak-ng's data cannot be read: {folder}")
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # that of voices with breath, which began with the time of day
        yield library, rate
        library.espeak_Terminate()
    finally:
        _ctypes.dlclose(library._handle)


def speak(text: str, manner: VoiceSettings) -> Speech:
    """Speaks `text`, without silence before and after.

    Raises:
        UserError: If espeak-ng is not installed, does not have the voice, or cannot say the text.
    """
    sound: list[np.ndarray] = []
    marks: list[tuple[str, float]] = []

    def receive(samples, count, events) -> int:
        if count > 0:
            sound.append(np.ctypeslib.as_array(samples, (count,)).copy())
        at = 0
        while events[at].type != _EVENT_END:
            if events[at].type == _EVENT_PHONEME:
                symbol = bytes(events[at].id.string).decode("utf-8", "ignore")
                marks.append((symbol, events[at].milliseconds / 1000))
            at += 1
        return 0

    with _lock, _library() as (library, rate):
        if library.espeak_SetVoiceByName(manner.voice.encode()) != 0:
            raise UserError(f"espeak-ng has no voice {manner.voice!r}")
        for parameter, value in ((_RATE, manner.rate), (_PITCH, manner.pitch), (_RANGE, manner.range), (_VOLUME, 100)):
            library.espeak_SetParameter(parameter, value, 0)
        callback = _Callback(receive)  # referenced until the end: the library calls it during synthesis
        library.espeak_SetSynthCallback(callback)
        data = text.encode() + b"\0"
        if library.espeak_Synth(data, len(data), 0, _BY_CHARACTER, 0, _UTF8, None, None) != 0:
            raise UserError(f"espeak-ng cannot say {text!r}")
        library.espeak_Synchronize()
    waveform = np.concatenate(sound).astype(np.float32) / 32768
    played = rate * manner.speed
    samples = librosa.resample(waveform, orig_sr=played, target_sr=SAMPLE_RATE)
    marks = [(symbol, start / manner.speed) for symbol, start in marks]
    return trimmed(_equalized(samples, manner.equalizer), _phonemes(marks, len(waveform) / played))


def _equalized(samples: Float32[np.ndarray, " n"], gains: tuple[float, ...]) -> Float32[np.ndarray, " n"]:
    """Changes the loudness of frequencies by gains in dB at `EQUALIZER_HZ`, without delay."""
    if not gains:
        return samples
    size = 2 ** int(np.ceil(np.log2(len(samples) + SAMPLE_RATE // 10)))
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    decibels = np.interp(np.log(hertz.clip(1.0)), np.log(EQUALIZER_HZ), gains)
    spectrum = np.fft.rfft(samples, size) * 10 ** (decibels / 20)
    return np.fft.irfft(spectrum, size)[: len(samples)].astype(np.float32)


def _phonemes(marks: list[tuple[str, float]], seconds: float) -> list[Phoneme]:
    """Phonemes from marks (symbol, start time): adds end times and removes stress marks."""
    stops = [start for _, start in marks[1:]] + [seconds]
    cleaned = [(symbol.strip("ˈˌ_ː|- \u200d"), start, stop) for (symbol, start), stop in zip(marks, stops, strict=True)]
    return [Phoneme(*part) for part in cleaned if part[2] > part[1]]


def trimmed(samples: Float32[np.ndarray, " n"], phonemes: list[Phoneme]) -> Speech:
    """Speech without the silence before and after it."""
    spoken = [phoneme for phoneme in phonemes if phoneme.symbol]
    if not spoken:
        return Speech(np.zeros(0, np.float32), ())
    start, stop = spoken[0].start, spoken[-1].stop
    inside = [p for p in phonemes if start <= p.start and p.stop <= stop + 1e-6]
    shifted = tuple(Phoneme(p.symbol, p.start - start, p.stop - start) for p in inside)
    return Speech(samples[int(start * SAMPLE_RATE) : int(stop * SAMPLE_RATE)], shifted)


def concatenate(parts: list[Speech], pauses: list[float]) -> Speech:
    """Concatenates the parts, with `pauses[i]` seconds of silence before part i and `pauses[-1]` after the last."""
    samples: list[np.ndarray] = []
    phonemes: list[Phoneme] = []
    position = 0
    for part, pause in zip([*parts, None], pauses, strict=True):
        silent = int(pause * SAMPLE_RATE)
        samples.append(np.zeros(silent, np.float32))
        if silent:
            phonemes.append(Phoneme("", position / SAMPLE_RATE, (position + silent) / SAMPLE_RATE))
        position += silent
        if part is not None:
            samples.append(part.samples)
            phonemes += [
                Phoneme(p.symbol, p.start + position / SAMPLE_RATE, p.stop + position / SAMPLE_RATE) for p in part.phonemes
            ]
            position += len(part.samples)
    return Speech(np.concatenate(samples), tuple(phonemes))
