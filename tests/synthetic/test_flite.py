"""Voices of flite: what it prints and writes becomes speech, and test clips use it where it is installed."""

import shutil

import numpy as np
import pytest
import soundfile

from itjax.errors import UserError
from itjax.media.containers import SAMPLE_RATE
from itjax.synthetic import clip as clips
from itjax.synthetic import flite
from itjax.synthetic.voice import VoiceSettings

PRINTED = "pau:0.200 m:0.260 ay:0.400 th:0.500 pau:0.700 "
MANNER = VoiceSettings("flite:slt")


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A command `flite` that copies a sound of 0.7 s, says its times, and keeps its arguments."""
    seconds = np.arange(5600) / 8000
    soundfile.write(tmp_path / "sound.wav", np.where((seconds > 0.2) & (seconds < 0.5), 0.5, 0.0), 8000)
    script = tmp_path / "flite"
    copy = f'for last; do :; done\ncp {tmp_path}/sound.wav "$last"'
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n{copy}\necho "{PRINTED}"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_what_flite_prints_are_the_phonemes_of_what_it_writes(fake):
    said = flite.speak("my th", MANNER._replace(rate=200, pitch=63))
    assert [(p.symbol, round(p.start, 3), round(p.stop, 3)) for p in said.phonemes] == [
        ("m", 0.0, 0.06), ("aɪ", 0.06, 0.2), ("θ", 0.2, 0.3)
    ]  # fmt: skip
    assert said.seconds == pytest.approx(0.3, abs=0.001) and said.samples[800:4000].min() > 0.4
    told = (fake / "arguments").read_text()
    assert "-voice slt " in told and "duration_stretch=0.8000" in told and "f0_shift=1.1000" in told and "-t my th " in told


def test_only_test_clips_use_it_and_the_same_clip_has_an_espeak_voice_without_it(fake, monkeypatch):
    voices_ = lambda split: [clips.make((0, i), 1.6, 48, 48, split=split).spoken[0].manner.voice for i in range(6)]
    assert not any(name.startswith(flite.PREFIX) for name in voices_("train") + voices_("validation"))
    used = voices_("test")
    monkeypatch.setattr(flite, "is_installed", lambda: False)
    without = voices_("test")
    ours = [name.startswith(flite.PREFIX) for name in used]
    assert any(ours) and not all(ours) and not any(name.startswith(flite.PREFIX) for name in without)
    assert [a for a, is_flite in zip(used, ours, strict=True) if not is_flite] == [
        b for b, is_flite in zip(without, ours, strict=True) if not is_flite
    ]  # fmt: skip


def test_a_flite_that_fails_is_said(fake, monkeypatch):
    (fake / "flite").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UserError, match="flite cannot say 'my th' with the voice flite:slt"):
        flite.speak("my th", MANNER)
    monkeypatch.setenv("PATH", str(fake / "nowhere"))
    with pytest.raises(UserError, match="flite cannot say"):
        flite.speak("my th", MANNER)
    assert not flite.is_installed()


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_flite_itself_hisses_where_it_says_so():
    said = flite.speak("see us pass the sea", MANNER._replace(voice="flite:rms"))
    for symbol, start, stop in said.phonemes:
        piece = said.samples[int((start + 0.01) * SAMPLE_RATE) : int((stop - 0.01) * SAMPLE_RATE)]
        if symbol in ("s", "i") and len(piece) > 400:
            power = np.abs(np.fft.rfft(piece)) ** 2
            high = power[int(3000 / SAMPLE_RATE * len(piece)) :].sum() / power.sum()
            assert (high > 0.5) == (symbol == "s")
