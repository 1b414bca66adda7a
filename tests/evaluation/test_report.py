"""The report of drawn videos: perfect ones are perfect, and what was done to the others is what it says."""

import json

import numpy as np
import pytest

from itjax.evaluation import report
from itjax.evaluation.mouths import opening_by_color
from itjax.media.video_file import write_video
from itjax.synthetic import clip as clips
from itjax.synthetic import mouth, scene
from itjax.synthetic.__main__ import main as draw

FLAGS = ["--clips", "2", "--seconds", "4", "--size", "64", "64"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder of two drawn clips and their truth."""
    out = tmp_path_factory.mktemp("drawn")
    assert draw([str(out), *FLAGS]) == 0
    return out


def report_of(drawn, videos, tmp_path, *flags):
    path = tmp_path / "report.json"
    status = report.main([str(videos), "--truth", str(drawn / "truth"), "--json", str(path), *flags])
    assert status == 0
    return json.loads(path.read_text())


def test_what_was_drawn_is_in_sync(drawn, tmp_path, capsys):
    found = report_of(drawn, drawn / "videos", tmp_path, "--frame_num", "17", "--motion_frame", "5")
    numbers = {name: value["mean"] for name, value in found["estimates"].items()}
    assert numbers.keys() == {"sync", "lag", "silence", "color_drift", "seam"}
    assert numbers["sync"] > 0.75 and numbers["lag"] == 0 and numbers["silence"] < 0.2 and numbers["seam"] < 2
    assert [video["name"] for video in found["videos"]] == ["drawn0000-00000", "drawn0000-00001"]
    assert len(found["videos"][0]["colors"]) == 4 and found["videos"][0]["colors"][0] == 0
    told = capsys.readouterr().out
    assert f"| sync | {numbers['sync']:.3f} |" in told and told.count("\n| ") == 6


def again(drawn, tmp_path, change):
    """The same clips, changed by `change`(clip) -> (frames, sound), as videos of the same names."""
    for number in range(2):
        frames = change(clips.make((0, number), 4.0, 64, 64))
        write_video(tmp_path / "videos" / f"drawn0000-{number:05d}.mp4", frames, None)
    found = report_of(drawn, tmp_path / "videos", tmp_path, "--frame_num", "17", "--motion_frame", "5")
    return {name: value["mean"] for name, value in found["estimates"].items()}


def drawing(clip, mouths):
    return np.stack([picture for picture, _ in scene.frames(clip.scene, mouths, 64, 64)])


def test_a_late_mouth_is_late(drawn, tmp_path):
    late = lambda clip: drawing(clip, (mouth.Mouth(*(np.roll(values, 3) for values in clip.spoken[0].mouth)),))
    numbers = again(drawn, tmp_path, late)
    assert numbers["lag"] == 3 and numbers["sync"] < 0.5


def test_a_frozen_mouth_is_not_in_sync(drawn, tmp_path):
    numbers = again(drawn, tmp_path, lambda clip: drawing(clip, (mouth.rest_track(clip.num_frames),)))
    assert abs(numbers["sync"]) < 0.4


def test_a_mouth_that_babbles_in_silence_is_found(drawn, tmp_path):
    def babbling(clip):
        open_ = 0.5 + 0.4 * np.sin(np.arange(clip.num_frames))
        return drawing(clip, (clip.spoken[0].mouth._replace(jaw=open_.astype(np.float32)),))

    assert again(drawn, tmp_path, babbling)["silence"] > 0.7


def test_drift_and_seams_are_found(drawn, tmp_path):
    def worse(clip):
        frames = drawing(clip, (clip.spoken[0].mouth,)).astype(float)
        for border in range(17, clip.num_frames, 12):
            frames[border:] -= 8
        return np.clip(frames, 0, 255).astype(np.uint8)

    numbers, before = again(drawn, tmp_path, worse), report_of(drawn, drawn / "videos", tmp_path)["estimates"]
    assert numbers["seam"] > 3 and numbers["color_drift"] > before["color_drift"]["mean"] + 50


def test_the_wrong_speaker_is_found(tmp_path):
    clip = clips.make((4, 0), 8.0, 64, 128, persons=2)
    mouths = tuple(said.mouth for said in clip.spoken)
    shown = list(scene.frames(clip.scene, mouths, 64, 128))
    truth = clips.truth(clip, [seen for _, seen in shown])
    frames = np.stack([picture for picture, _ in shown])
    swapped = np.stack([picture for picture, _ in scene.frames(clip.scene, mouths[::-1], 64, 128)])
    right, wrong = (report.measure("x", made, truth, (), None).numbers for made in (frames, swapped))
    assert right["wrong_speaker"] < 0.3 and right["sync"] > 0.8
    assert wrong["wrong_speaker"] > 2 and wrong["sync"] < 0.2


def test_an_area_outside_of_the_picture_is_no_number():
    frames = np.zeros((1, 16, 16, 3), np.uint8)
    assert np.isnan(opening_by_color(frames, [(20.0, 2.0, 30.0, 8.0)], [(200, 200, 200)])[0])


def test_what_is_missing_is_said(drawn, tmp_path, capsys):
    run = lambda *flags: (report.main([str(flag) for flag in flags]), capsys.readouterr().err)
    status, told = run(tmp_path, "--truth", drawn / "truth")
    assert status == 2 and "no mp4 in this folder" in told
    status, told = run(drawn / "videos", "--truth", tmp_path)
    assert status == 2 and "drawn0000-00000.json: no such file" in told
    status, told = run(drawn / "videos", "--truth", drawn / "truth", "--landmarks", tmp_path / "none.tflite")
    assert status == 2 and ("no such file" in told or "ai-edge-litert" in told)
    other = np.zeros((60, 32, 32, 3), np.uint8)
    write_video(tmp_path / "videos" / "drawn0000-00000.mp4", other, None)
    status, told = run(tmp_path / "videos", "--truth", drawn / "truth")
    assert status == 2 and "the video is 32x32, its ground truth [64, 64]" in told
    write_video(tmp_path / "videos" / "drawn0000-00000.mp4", np.zeros((49, 64, 64, 3), np.uint8), None)
    status, told = run(tmp_path / "videos", "--truth", drawn / "truth")
    assert status == 2 and "drawn0000-00000: 49 frames with ground truth are too few: at least 50 are needed" in told
    status, told = run(drawn / "videos", "--truth", drawn / "truth", "--frame_num", "17", "--motion_frame", "17")
    assert status == 2 and "--motion_frame 17" in told
