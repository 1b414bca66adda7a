"""What the official code fails on, and is made here: odd lengths, tracks that differ, short films, full disks."""

import os

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from itjax.pipeline import dub
from itjax.sampling.plan import speech_windows

AAC = 1024 / 48_000  # seconds of an AAC packet: the sound may be longer than the pictures by less than one

# -- speech of any length ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "made"), [(1 / 640, 1), (1 / 64, 1), (1, 1), (2.5, 2), (5, 5), (6, 6), (11, 11)])
def test_speech_from_a_single_sample_on(frames, made, run, talk, face):
    video = run("--image", face, "--audio", talk(frames)).video
    assert len(video.frames) == made
    assert 0 <= video.seconds_of_sound - made / 25 < AAC
    assert np.abs(video.sound).max() > 0.01 or frames < 1  # AAC smooths away a click


def test_digital_silence(run, face, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(6 * 640), 16000)
    video = run("--image", face, "--audio", tmp_path / "silence.wav").video
    assert len(video.frames) == 6
    assert not video.sound.any()


@pytest.mark.parametrize("mode", ["--mode clip", "--max_frame_num 7"])
def test_a_video_cut_short_says_so(mode, run, talk, face):
    result = run("--image", face, "--audio", talk(20), *mode.split())
    assert len(result.video.frames) == (5 if "clip" in mode else 7)
    assert "the speech lasts 0.80 s, but the video is cut to" in result.said


# -- two persons ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(4, 18), (18, 4)])
def test_nobody_is_cut_where_tracks_differ(lengths, run, talk, face):
    result = run("--image", face, "--audio", *map(talk, lengths))
    video = result.video
    assert len(video.frames) == 18
    assert np.abs(video.sound[-1920:]).max() > 0.01  # the last frame is heard
    assert "the shorter one is padded with silence" in result.said


@pytest.mark.parametrize(("lengths", "made"), [((9, 13), 9), ((10, 13), 13), ((13, 10), 10)])
def test_a_small_difference_is_cut_by_the_official_rule(lengths, made, run, talk, face):
    """Chunks (5, 9, 13 frames) until the first track ends, cut to the last track's length."""
    result = run("--image", face, "--audio", *map(talk, lengths))
    assert len(result.video.frames) == made
    assert "padded" not in result.said


def test_one_after_the_other(run_json, talk, face):
    sounds = {"person1": talk(4), "person2": talk(7)}
    video = run_json({"prompt": "two", "cond_video": face, "cond_audio": sounds, "audio_type": "add"}).video
    assert len(video.frames) == 11
    assert np.abs(video.sound[-1920:]).max() > 0.01


def test_boxes_and_masks_say_the_same(run, talk, face, tmp_path):
    """A mask image of the box gives the very frames of the box; who is who is drawn."""
    voices = "--image", face, "--audio", talk(4), talk(5)
    boxes = (0, 45, 97, 83), (0, 0, 80, 35)  # the other way round than without boxes
    for number, (top, left, bottom, right) in enumerate(boxes):
        mask = np.zeros((97, 83), np.uint8)
        mask[top:bottom, left:right] = 255
        Image.fromarray(mask).save(tmp_path / f"mask{number}.png")
    said = run(*voices, *(x for box in boxes for x in ("--bbox", *box))).video.frames
    drawn = run(*voices, "--mask", tmp_path / "mask0.png", tmp_path / "mask1.png").video.frames
    halves = run(*voices).video.frames
    assert np.array_equal(said, drawn)
    assert not np.array_equal(said, halves)
    assert Image.open(tmp_path / "out.persons.png").size == (48, 64)


# -- the source -------------------------------------------------------------------------------------------------------


def film(path, frames, sound=False):
    """A video whose picture changes from frame to frame, with a tone if asked."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"qp": "0"})
        video.width, video.height, video.pix_fmt = 48, 64, "yuv444p"
        audio = container.add_stream("aac", rate=48000, layout="mono") if sound else None
        for i in range(frames):
            picture = np.full((64, 48, 3), 255 * i // frames, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture)))
            if audio:
                tone = np.sin(np.arange(1920 * i, 1920 * (i + 1), dtype=np.float32) / 20)[None] * 0.3
                block = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
                block.sample_rate, block.pts = 48000, 1920 * i
                container.mux(audio.encode(block))
        for stream in container.streams:
            container.mux(stream.encode(None))
    return path


def test_a_source_shorter_than_the_speech_stays_at_its_last_frame(run, talk, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("itjax.pipeline.encoders.resize_and_crop", lambda frame, size: shown.append(frame) or frame)
    result = run("--video", film(tmp_path / "film.mp4", 6), "--audio", talk(16))
    assert len(result.video.frames) == 16
    assert "the source lasts 0.24 s, the generated video 0.64 s: the last source frame is repeated" in result.said
    brightness = [float(frame.mean()) for frame in shown]
    assert brightness == pytest.approx([0, 255 * 4 // 6, 255 * 5 // 6, 255 * 5 // 6], abs=2)  # chunks start at 0 4 8 12


def test_a_source_whose_last_frame_is_not_needed_causes_no_warning(run, talk, tmp_path):
    """The sound of a film is often longer than its pictures, by less than a chunk."""
    result = run("--video", film(tmp_path / "film.mp4", 10), "--audio", talk(12))
    assert len(result.video.frames) == 12 and "the last source frame is repeated" not in result.said


def test_a_silent_tail_is_heard_where_the_speech_would_be_backwards(run, talk, face, monkeypatch):
    heard, tracks = [], []

    def listened(chunk, features, *sizes):
        heard.append(speech_windows(chunk, features, *sizes))
        tracks.append(features[0].num_frames)
        return heard[-1]

    monkeypatch.setattr(dub, "speech_windows", listened)
    for flags in ((), ("--silent_tail",)):
        assert len(run("--image", face, "--audio", talk(7), *flags).video.frames) == 7
    assert tracks == [7, 7, 12, 12]  # by a chunk of 5 frames longer
    # the last chunk is of frames 4 to 8: 7 and 8 are frames 6 and 5 again, or silence
    (backwards,), (silent,) = heard[1][:, :, 2], heard[3][:, :, 2]
    np.testing.assert_array_equal(backwards[3:], backwards[2:0:-1])
    assert not np.allclose(silent[3:], silent[2:0:-1], atol=1e-2)


def test_a_film_dubbed_with_its_own_sound(run, tmp_path):
    path = film(tmp_path / "film.mp4", 8, sound=True)
    video = run("--video", path, "--audio", path).video
    assert len(video.frames) in (8, 9)  # the encoder fills its last packet
    assert np.sqrt((video.sound[3840:-3840] ** 2).mean()) == pytest.approx(0.3 / 2**0.5, rel=0.05)


# -- the output -------------------------------------------------------------------------------------------------------


def test_a_full_disk_keeps_what_was_made(run, talk, face, monkeypatch):
    voice = "--image", face, "--audio", talk(13)
    written, room, pwrite = 0, 30_000, os.pwrite

    def limited(descriptor, data, offset):
        nonlocal written
        written += len(data)
        if written > room:
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr("itjax.media.journal.os.pwrite", limited)
    result = run(*voice)
    assert result.status == 3
    assert "out.mp4 cannot be written: No space left on device. " in result.said and "--resume" in result.said
    kept = len(result.path.read_bytes()) and result._replace(status=0).video
    assert 5 <= len(kept.frames) < 13
    monkeypatch.undo()
    assert len(run(*voice, "--resume").video.frames) == 13
