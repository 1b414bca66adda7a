"""The demo around the networks: its media fit each other and the truth, and its picture shows what is in a video."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from itjax import small
from itjax.demo import MEDIA, picture
from itjax.demo.__main__ import VIDEOS, _flags, _measure, main
from itjax.evaluation import truths
from itjax.evaluation.videos import FrameReader
from itjax.media.containers import FRAME_RATE, SAMPLE_RATE
from itjax.media.speech import load_track
from itjax.synthetic.voices import split_of_variant


@pytest.mark.parametrize("name", VIDEOS)
def test_media_truth_and_speech_belong_together(name):
    truth = truths.read_truth(MEDIA / f"{name}.json")
    source = FrameReader(MEDIA / f"{name}.{VIDEOS[name][1]}")
    speech = load_track(MEDIA / f"{name}.flac")
    assert source.size == truth.size == (64, 64)
    assert len(speech) == truth.num_frames * SAMPLE_RATE // FRAME_RATE
    # the jaw of the truth moves with the sound, and with no other: it is open where the speech is loud
    frames = np.abs(speech).reshape(truth.num_frames, -1).max(1)
    jaw = truth.tracks[0].opening
    at = [np.corrcoef(np.roll(frames, shift), jaw)[0, 1] for shift in range(-20, 21)]
    assert max(at) > 0.5 and abs(int(np.argmax(at)) - 20) <= 3


@pytest.mark.parametrize("name", VIDEOS)
def test_nobody_in_the_demo_was_trained_on(name):
    content = json.loads((MEDIA / f"{name}.json").read_text(encoding="utf-8"))
    assert content["split"] == "test"
    assert split_of_variant(content["people"][0]["voice"]["voice"].split("+")[1]) == "test"


def test_the_film_is_dubbed_with_other_speech():
    film, own = (load_track(MEDIA / name) for name in ("film.flac", "film.mp4"))
    length = min(len(film), len(own))
    assert abs(np.corrcoef(film[:length], own[:length])[0, 1]) < 0.1


def test_the_demo_runs_the_command_that_it_shows(tmp_path, capsys):
    flags = _flags("portrait", tmp_path)
    shown = capsys.readouterr().out
    assert flags[:2] == ["--preset", "small"] and all(flag in shown for flag in flags)
    assert all(Path(flags[flags.index(flag) + 1]).is_file() for flag in ("--image", "--audio"))


def test_without_weights_the_demo_says_so_and_makes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(small, "files", lambda name: tmp_path / "nowhere")
    assert main([str(tmp_path / "out")]) == 2
    assert "lacks the small model's weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_picture_shows_frames_sound_and_both_curves():
    frames = np.zeros((50, 64, 64, 3), np.uint8)
    frames[25:] = (200, 30, 40)
    sound = np.zeros(2 * SAMPLE_RATE, np.float32)
    sound[SAMPLE_RATE:] = 0.5  # silent, then loud
    opening = np.repeat([0.0, 1.0], 25)
    drawn = np.asarray(picture.picture(frames, sound, {picture.TRUE: opening, picture.SEEN: np.full(50, np.nan)}))
    side = (drawn.shape[1] - 2 * picture.MARGIN) // picture.SHOWN
    strip, middle = picture.MARGIN + side, drawn.shape[1] // 2
    assert (drawn[picture.MARGIN + 5, picture.MARGIN + 5] == 0).all()
    assert (drawn[picture.MARGIN + 5, -picture.MARGIN - 5] == (200, 30, 40)).all()
    dark = (drawn[strip : strip + picture.SOUND] < 200).all(-1).sum(0)
    assert dark[picture.MARGIN : middle - 4].max() <= 2 and dark[middle + 4 : -picture.MARGIN - 4].min() > 40
    curves = drawn[strip + picture.SOUND + picture.LINE :]
    orange = (np.abs(curves.astype(int) - (0xE0, 0x8A, 0x1E)).max(-1) < 40).argmax(0)  # the first row with the curve
    assert orange[middle + 40] < 20 < 60 < orange[middle - 40]


def test_the_curve_of_a_drawn_video_is_its_truth(tmp_path, monkeypatch):
    """The film itself, whose truth is known but for the mouth: what is read of it is drawn, and it is in the jaw's units."""
    shown = {}
    monkeypatch.setattr(picture, "picture", lambda frames, sound, curves: shown.update(curves) or picture_of(frames))
    picture_of = lambda frames: picture.Image.fromarray(frames[0])
    picture.draw(MEDIA / "film.mp4", MEDIA / "film.json", tmp_path / "film.png")
    assert (tmp_path / "film.png").is_file()
    assert np.isfinite(shown[picture.SEEN]).mean() > 0.95
    assert 0.6 < np.nanmax(shown[picture.SEEN]) < 1.3


def test_it_ends_with_figures_and_pictures(tmp_path, capsys):
    """The film in place of both results: it is seen to be like its truth, and not to be the portrait's person."""
    for name in VIDEOS:
        shutil.copy(MEDIA / "film.mp4", tmp_path / f"{name}.mp4")
    _measure(tmp_path)
    figures = (tmp_path / "figures.md").read_text(encoding="utf-8")
    rows = {cells[1]: cells[2:4] for line in figures.splitlines() if len(cells := line.replace(" ", "").split("|")) == 5}
    found = {name: dict(zip(VIDEOS, values, strict=True)) for name, values in rows.items()}
    assert float(found["faces_found"]["film"]) > 0.95 and float(found["identity"]["film"]) > 0.9
    assert float(found["head_follow"]["film"]) > 0.9 and "nan" not in figures
    assert figures.split("\n\n")[0] in capsys.readouterr().out
    for name in VIDEOS:
        assert picture.Image.open(tmp_path / f"{name}.png").width > 400
