"""Speech with known times: the same every time, and said when it is said to be."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from itjax.errors import UserError
from itjax.media.containers import SAMPLE_RATE
from itjax.synthetic import voice, voices
from itjax.synthetic.splits import SPLITS
from itjax.synthetic.voice import VoiceSettings

ROOT = Path(__file__).parents[2]
MANNER = VoiceSettings("en-us+m1")


VARIANTS = [variant for split in SPLITS for woman in (True, False) for variant in voices.variants(split, woman)]


def test_every_voice_speaks():
    assert len(VARIANTS) == len(set(VARIANTS)) >= 70
    for variant in VARIANTS:
        said = voice.speak("my thumb", VoiceSettings(f"en-us+{variant}"))
        assert 0.2 < said.seconds < 1.5 and np.abs(said.samples).max() > 0.05, variant
        assert [p.symbol[0] for p in said.phonemes if p.symbol] == ["m", "a", "θ", "ʌ", "m"], variant


@pytest.mark.parametrize("accent", voices.ACCENTS)
def test_every_accent_speaks(accent):
    assert voice.speak("my thumb", VoiceSettings(f"{accent}+f1")).seconds > 0.2


def test_a_voice_that_is_played_faster_has_earlier_phonemes_and_a_higher_pitch():
    usual, fast = (voice.speak("a big moon", MANNER._replace(speed=speed)) for speed in (1.0, 1.19))
    assert usual.seconds / fast.seconds == pytest.approx(1.19, abs=0.01)
    for one, other in zip(usual.phonemes, fast.phonemes, strict=True):
        assert one.symbol == other.symbol and one.stop / 1.19 == pytest.approx(other.stop, abs=1e-3)
    middle = lambda said: np.average(np.arange(len(said.samples) // 2 + 1), weights=np.abs(np.fft.rfft(said.samples)) ** 2)
    assert middle(fast) / middle(usual) * usual.seconds / fast.seconds == pytest.approx(1.19, abs=0.03)


def test_an_equalizer_changes_the_bands_it_names_and_no_times():
    usual = voice.speak("so we see", MANNER)
    bright = voice.speak("so we see", MANNER._replace(equalizer=(0.0, 0.0, 0.0, 9.0)))
    assert bright.phonemes == usual.phonemes and len(bright.samples) == len(usual.samples)
    before, after = (np.abs(np.fft.rfft(said.samples)) ** 2 for said in (usual, bright))
    hertz = np.fft.rfftfreq(len(usual.samples), 1 / SAMPLE_RATE)
    gain = lambda band: 10 * np.log10(after[band].sum() / before[band].sum())
    assert gain(hertz < 1500) == pytest.approx(0, abs=0.2) and gain(hertz > 5200) == pytest.approx(9, abs=0.5)


def test_the_same_text_has_the_same_samples_whatever_was_said_before():
    voices_of = "en-us+m1", "en-us+f3"  # f3 breathes: noise
    first = [voice.speak("hello there", VoiceSettings(name)).samples for name in voices_of]
    voice.speak("something else entirely", VoiceSettings("en-us+f3", rate=190))
    assert np.array_equal(voice.speak("hello there", MANNER).samples, first[0])
    # and in a process that starts at least a second later, as the noise could begin with the time of day
    code = (
        "import hashlib; from itjax.synthetic import voice\n"
        f"for name in {voices_of}:\n"
        "    print(hashlib.sha256(voice.speak('hello there', voice.VoiceSettings(name)).samples.tobytes()).hexdigest())"
    )
    seen = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    assert seen == [hashlib.sha256(samples.tobytes()).hexdigest() for samples in first]


def test_phonemes_follow_each_other_from_the_first_sound_to_the_last():
    said = voice.speak("five big apples, in the moonlight", MANNER)
    starts, stops = ([getattr(p, name) for p in said.phonemes] for name in ("start", "stop"))
    assert starts[0] == 0 and starts[1:] == pytest.approx(stops[:-1]) and stops[-1] == pytest.approx(said.seconds, abs=0.01)
    assert all(start < stop for start, stop in zip(starts, stops, strict=True))


def test_times_are_those_of_the_sound():
    """Hisses have most of their power above 3 kHz, vowels have not."""
    said = voice.speak("see us pass the sea, so soon she saw a sauce", VoiceSettings("en-us+m1", rate=120))
    share = {"s": [], "vowel": []}
    for symbol, start, stop in said.phonemes:
        piece = said.samples[int((start + 0.01) * SAMPLE_RATE) : int((stop - 0.01) * SAMPLE_RATE)]
        if len(piece) > 400 and symbol[:1] in ("s", "i", "ɔ", "æ", "u"):
            power = np.abs(np.fft.rfft(piece)) ** 2
            high = power[int(3000 / SAMPLE_RATE * len(piece)) :].sum() / power.sum()
            share["s" if symbol[0] == "s" else "vowel"].append(high)
    assert len(share["s"]) >= 6 and len(share["vowel"]) >= 6
    assert min(share["s"]) > 0.5 > 0.3 > max(share["vowel"])


def test_parts_are_joined_with_silence_of_the_length_asked_for():
    part = voice.speak("oh yes", MANNER)
    whole = voice.concatenate([part, part], [0.5, 0.25, 1.0])
    assert len(whole.samples) == 2 * len(part.samples) + int(1.75 * SAMPLE_RATE)
    silent = [p for p in whole.phonemes if p.stop - p.start > 0.2 and not p.symbol]
    assert [(round(p.start, 3), round(p.stop - p.start, 3)) for p in silent] == [
        (0.0, 0.5), (round(0.5 + part.seconds, 3), 0.25), (round(0.75 + 2 * part.seconds, 3), 1.0)
    ]  # fmt: skip
    for p in silent:
        assert not whole.samples[int(p.start * SAMPLE_RATE) + 1 : int(p.stop * SAMPLE_RATE) - 1].any()


def test_a_voice_that_is_not_there_is_named():
    with pytest.raises(UserError, match="no voice 'xx\\+m1'"):
        voice.speak("hello", VoiceSettings("xx+m1"))
