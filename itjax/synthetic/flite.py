"""Speech by flite, another synthesizer (the Debian package flite), whose voices are recorded from people.

It is used for test clips where it is installed: how a network does on a voice that espeak-ng could not have made.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import librosa
import soundfile

from itjax.errors import UserError
from itjax.media.containers import SAMPLE_RATE
from itjax.synthetic.voice import Phoneme, Speech, VoiceSettings, trimmed

PREFIX = "flite:"  # of the names of its voices among all voices
WOMEN, MEN = ("slt",), ("rms", "awb", "kal16")
USUAL_RATE, USUAL_PITCH = 160, 50  # of VoiceSettings: what flite says without any change
PITCH_STEP = 130  # steps of VoiceSettings.pitch that raise the pitch by as much as it is

# flite's phones (those of CMU's dictionary) in IPA; others are silence
IPA = {
    "aa": "ɑ", "ae": "æ", "ah": "ʌ", "ao": "ɔ", "aw": "aʊ", "ax": "ə", "axr": "ɚ", "ay": "aɪ", "b": "b", "ch": "tʃ",
    "d": "d", "dh": "ð", "dx": "ɾ", "eh": "ɛ", "el": "əl", "em": "m", "en": "n", "er": "ɜ", "ey": "eɪ", "f": "f",
    "g": "ɡ", "hh": "h", "hv": "h", "ih": "ɪ", "iy": "i", "jh": "dʒ", "k": "k", "l": "l", "m": "m", "n": "n", "ng": "ŋ",
    "nx": "n", "ow": "oʊ", "oy": "ɔɪ", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t", "th": "θ", "uh": "ʊ", "uw": "u",
    "v": "v", "w": "w", "y": "j", "z": "z", "zh": "ʒ",
}  # fmt: skip


def is_installed() -> bool:
    """Whether the command flite is there."""
    return shutil.which("flite") is not None


def speak(text: str, manner: VoiceSettings) -> Speech:
    """Speaks `text` with a voice of flite, without silence before and after; `range`, speed and equalizer are ignored.

    Raises:
        UserError: If flite is not installed or cannot say the text.
    """
    features = {
        "duration_stretch": USUAL_RATE / manner.rate,
        "f0_shift": 1 + (manner.pitch - USUAL_PITCH) / PITCH_STEP,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        flags = [flag for name, value in features.items() for flag in ("--setf", f"{name}={value:.4f}")]
        command = ["flite", "-voice", manner.voice.removeprefix(PREFIX), *flags, "-psdur", "-t", text, "-o", str(path)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, check=True)
            sound, rate = soundfile.read(path, dtype="float32")
        except (OSError, subprocess.CalledProcessError, soundfile.SoundFileError) as error:
            raise UserError(f"flite cannot say {text!r} with the voice {manner.voice}: {error}") from error
    samples = librosa.resample(sound, orig_sr=rate, target_sr=SAMPLE_RATE)
    return trimmed(samples, _phonemes(ended.stdout))


def _phonemes(printed: str) -> list[Phoneme]:
    """Phonemes from what flite prints: "pau:0.224 m:0.260 ...", each with its end in seconds."""
    phonemes, start = [], 0.0
    for part in printed.split():
        name, _, end = part.rpartition(":")
        stop = float(end)
        if stop > start:
            phonemes.append(Phoneme(IPA.get(name, ""), start, stop))
            start = stop
    return phonemes
