"""Files of odd kinds are read as they look and sound, or refused in a sentence."""

import json
import os
from functools import partial

import numpy as np
import odd_files as odd
import pytest
from kinds import SAMPLING, Accepted

from itjax.commands import infer
from itjax.errors import UserError
from itjax.media.pictures import open_source
from itjax.media.speech import load_track

PICTURES = {
    "a.webp": odd.animated, "a.avif": odd.animated, "a.png": odd.animated, "a.gif": odd.animated, "cmyk.jpg": odd.cmyk,
    "cmyk.tiff": odd.cmyk, "p.png": odd.palette_with_transparency, "p.gif": odd.palette_with_transparency,
    "deep.png": odd.deep_colour, "line.png": odd.line,
}  # fmt: skip
VIDEOS = {
    "interlaced.mp4": partial(odd.video, interlaced=True), "uneven.mp4": partial(odd.video, uneven=True),
    "uneven.mkv": partial(odd.video, uneven=True), "cover.mp4": partial(odd.video, cover=True),
}  # fmt: skip
SUBTYPES = {
    "24.wav": ("WAV", "PCM_24"), "double.wav": ("WAV", "DOUBLE"), "w64.w64": ("W64", "PCM_16"),
    "rf64.wav": ("RF64", "PCM_16"),
    "alaw.wav": ("WAV", "ALAW"), "ulaw.wav": ("WAV", "ULAW"), "ima.wav": ("WAV", "IMA_ADPCM"), "ms.wav": ("WAV", "MS_ADPCM"),
    "u8.wav": ("WAV", "PCM_U8"), "au.au": ("AU", "PCM_16"), "aiff.aiff": ("AIFF", "PCM_24"), "alac.caf": ("CAF", "ALAC_16"),
}  # fmt: skip
SILENCE = bytes(2 * odd.RATE)
WAVS = {
    "nothing.wav": ({"data": b""}, "contains no audio samples"),
    "tag.wav": ({"data": SILENCE, "tag": 0x1234}, "FFmpeg cannot decode this kind of audio"),
    "channels.wav": ({"data": SILENCE, "channels": 0}, "its audio has 0 channels"),
    "bits.wav": ({"data": SILENCE, "bits": 0}, "FFmpeg cannot decode this kind of audio"),
    "rate.wav": ({"data": SILENCE, "rate": 0}, "cannot be read as audio"),
    "huge.wav": ({"data": np.full(99, 3e38, np.float32).tobytes(), "tag": 3, "bits": 32}, r"3e\+38 times full scale"),
    "streamed.wav": ({"data": SILENCE, "claimed": 2**32 - 1}, ""),  # as programs write that do not know the length yet
    "open.wav": ({"data": SILENCE, "claimed": 0}, ""),
    "half.wav": ({"data": SILENCE + b"1"}, ""),
}


@pytest.mark.parametrize(("name", "write"), PICTURES.items(), ids=PICTURES)
def test_pictures(name, write, tmp_path):
    write(tmp_path / name)
    source = open_source(tmp_path / name)
    assert source.is_still and np.abs(source.frame(3).astype(int) - odd.RED).max() < 12


@pytest.mark.parametrize(("name", "write"), VIDEOS.items(), ids=VIDEOS)
def test_videos(name, write, tmp_path):
    write(tmp_path / name)
    source = open_source(tmp_path / name)
    for number, colour in ((0, odd.RED), (12, odd.RED), (14, odd.GREEN), (24, odd.GREEN), (2, odd.RED)):
        assert source.size == (64, 80) and np.abs(source.frame(number).astype(int) - colour).max() < 12, number


@pytest.mark.parametrize(("name", "kind"), SUBTYPES.items(), ids=SUBTYPES)
def test_sound(name, kind, tmp_path):
    odd.sound(tmp_path / name, *kind)
    track = load_track(tmp_path / name)[: odd.RATE]
    assert np.corrcoef(track, odd.voice()[: len(track)])[0, 1] > 0.9


@pytest.mark.parametrize(("name", "case"), WAVS.items(), ids=WAVS)
def test_wav_files_with_odd_headers(name, case, tmp_path):
    given, reason = case
    odd.wav(tmp_path / name, **given)
    if reason:
        with pytest.raises(UserError, match=f"{name}: .*{reason}"):
            load_track(tmp_path / name)
    else:
        assert len(load_track(tmp_path / name)) == odd.RATE


def test_a_film_without_pictures(tmp_path):
    odd.video(tmp_path / "a.mp4", only_sound=True)
    assert len(load_track(tmp_path / "a.mp4")) > odd.RATE / 2
    with pytest.raises(UserError, match=r"a\.mp4: the file contains no images"):
        open_source(tmp_path / "a.mp4")


REQUEST = json.dumps({"prompt": "P", "cond_video": "a.png", "cond_audio": {"person1": "a.wav"}})
ENDLESS = "9" * 5000
TEXTS = {
    "mark": (REQUEST.encode("utf-8-sig"), ""),
    "utf16": (REQUEST.encode("utf-16"), "the text is not UTF-8"),
    "utf16 without a mark": (REQUEST.encode("utf-16-le"), "cannot be read as JSON"),
    "NaN": (REQUEST.replace('"P"', "NaN").encode(), "the number NaN is not finite"),
    "-Infinity": (REQUEST.replace('"P"', "-Infinity").encode(), "the number -Infinity is not finite"),
    "1e999": (REQUEST.replace('"P"', "1e999").encode(), "the number 1e999 is not finite"),
    "many digits": (REQUEST.replace('"P"', ENDLESS).encode(), "cannot be read as JSON"),
    "a pair": (REQUEST.replace("P", r"\ud83d\ude00").encode(), ""),
    "half a pair": (REQUEST.replace("P", r"\ud83d").encode(), "prompt has half a surrogate pair"),
    "deep": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested more than 100 deep"),
    "control characters": (REQUEST.replace("P", r"\u0000\u0007\u001b[2J").encode(), ""),
    "a name that directs the terminal": (REQUEST.replace("a.png", r"\u001b[2J.png").encode(), r"there is no file \x1b[2J"),
    "a name with a line break": (REQUEST.replace("a.png", r"a\nb.png").encode(), "cond_video: there is no file a"),
    "an address": (REQUEST.replace("a.png", "concat:/etc/passwd|x").encode(), "cond_video: there is no file concat:"),
}


@pytest.mark.parametrize(("text", "reason"), TEXTS.values(), ids=TEXTS)
def test_json(text, reason, originals, opened, not_generated, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(infer, "open_weights", lambda args: opened)
    monkeypatch.chdir(originals.folder)
    (tmp_path / "in.json").write_bytes(text)
    argv = [*originals.weights, *SAMPLING, "--input_json", str(tmp_path / "in.json"), "--save_file", str(tmp_path / "out")]
    if not reason:
        with pytest.raises(Accepted):
            infer.main(argv)
        return
    assert infer.main(argv) == 2
    said = capsys.readouterr().err
    assert "in.json" in said and reason in said and "\x1b" not in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("folder", 2, "is a folder; specify a file name in it"),
        ("", 2, "is a folder; specify a file name in it"),
        ("to-full", 2, "is a device or a pipe, not a file"),
        ("pipe", 2, "is a device or a pipe, not a file"),
        ("in.json/x", 2, "does not exist"),
        ("/dev/full/x", 2, "does not exist"),
        ("/proc/x", 2, "cannot be written"),
        ("n" * 255, 2, "cannot be written: File name too long"),
        ("n" * 250, 2, "cannot be written: File name too long"),
        ("a/" * 3000, 2, "File name too long"),
    ],
)
def test_places_where_nothing_can_be_written(
    name, status, reason, originals, opened, not_generated, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(infer, "open_weights", lambda args: opened)
    (tmp_path / "folder").mkdir()
    (tmp_path / "in.json").write_text("{}")
    (tmp_path / "to-full.mp4").symlink_to("/dev/full")
    os.mkfifo(tmp_path / "pipe.mp4")
    media = "--image", str(originals.folder / "a.png"), "--audio", str(originals.folder / "a.wav")
    before = sorted(tmp_path.iterdir())
    assert infer.main([*originals.weights, *SAMPLING, *media, "--save_file", str(tmp_path / name)]) == status
    said = capsys.readouterr().err
    assert reason in said and said.count("\n") == 1 and "Traceback" not in said, said
    assert sorted(tmp_path.iterdir()) == before
