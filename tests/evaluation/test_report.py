"""The report of drawn videos: perfect ones are perfect, and what was done to the others is what it says."""

import json

import numpy as np
import pytest

from itjax.evaluation.__main__ import main
from itjax.evaluation.video import Job, measure
from itjax.media.video_file import write_video
from itjax.synthetic import clip as clips
from itjax.synthetic import mouth, scene
from itjax.synthetic.__main__ import main as draw
from itjax.synthetic.__main__ import write

FLAGS = ["--clips", "1", "--seconds", "4", "--size", "64", "64"]
CHUNK = (17, 5)


@pytest.fixture(scope="module")
def drawn(made_once):
    """A folder of one drawn clip and its truth."""
    return made_once("drawn-clips", lambda out: draw([str(out), *FLAGS]))


def test_what_was_drawn_is_in_sync(drawn, tmp_path, capsys):
    flags = ["--truth", str(drawn / "truth"), "--frame_num", "17", "--motion_frame", "5", "--out", str(tmp_path / "report")]
    assert main([str(drawn / "videos"), *flags]) == 0
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    numbers = {name: value["mean"] for name, value in found["estimates"].items()}
    assert numbers["sync"] > 0.9 and numbers["lag"] == 0 and numbers["silence"] < 0.2
    assert numbers["seam"] < 2 and numbers["frozen"] == numbers["flashes"] == 0
    assert [video["name"] for video in found["videos"]] == ["drawn0000-00000"]
    assert len(found["videos"][0]["curves"]["color"]) == 4 and found["videos"][0]["curves"]["color"][0] == 0
    told, written = capsys.readouterr().out, (tmp_path / "report" / "report.md").read_text()
    assert f"| sync | {numbers['sync']:.3f} |" in told and f"| sync | {numbers['sync']:.3f} |" in written
    plots = sorted(path.name for path in (tmp_path / "report" / "plots").iterdir())
    assert {"lips.png", "drift.png", "breaks.png", "color_over_time.png"} <= set(plots)
    assert all(f"](plots/{name})" in written for name in plots)
    assert all((tmp_path / "report" / "plots" / name).read_bytes().startswith(b"\x89PNG") for name in plots)


def again(tmp_path, change, truth=None):
    """The first clip, changed by `change`(clip) -> frames, as a video of the same name: its numbers."""
    video = tmp_path / "drawn0000-00000.mp4"
    clip = clips.make((0, 0), 4.0, 64, 64)
    write_video(video, change(clip), clip.sound)
    return measure(Job(video, truth=truth, chunk=CHUNK)).numbers


def drawing(clip, mouths):
    return np.stack([picture for picture, _ in scene.frames(clip.scene, mouths, 64, 64)])


def test_a_late_mouth_is_late(drawn, tmp_path):
    late = lambda clip: drawing(clip, (mouth.Mouth(*(np.roll(values, 3) for values in clip.spoken[0].mouth)),))
    numbers = again(tmp_path, late, drawn / "truth")
    assert numbers["lag"] == 3 and numbers["sync"] < 0.5


def test_breaks_are_found(drawn, tmp_path):
    def worse(clip):
        frames = drawing(clip, (clip.spoken[0].mouth,)).astype(float)
        for border in range(17, clip.num_frames, 12):
            frames[border:] -= 8
        frames[30:40] = frames[30]
        frames[61:63] += 40
        return np.clip(frames, 0, 255).astype(np.uint8)

    numbers, before = again(tmp_path, worse), measure(Job(drawn / "videos/drawn0000-00000.mp4")).numbers
    assert numbers["seam"] > 3 and numbers["color_drift"] > before["color_drift"] + 50
    assert numbers["frozen"] > 0.07 and numbers["flashes"] == pytest.approx(2.5) and numbers["largest_flash"] > 20


def test_the_wrong_speaker_is_found(tmp_path):
    clip = clips.make((4, 0), 6.0, 64, 128, persons=2)
    write(clip, list(clips.frames(clip)), tmp_path, "two")
    right = measure(Job(tmp_path / "videos/two.mp4", truth=tmp_path / "truth")).numbers
    mouths = tuple(said.mouth for said in clip.spoken)
    swapped = np.stack([picture for picture, _ in scene.frames(clip.scene, mouths[::-1], 64, 128)])
    write_video(tmp_path / "videos/two.mp4", swapped, clip.sound)
    wrong = measure(Job(tmp_path / "videos/two.mp4", truth=tmp_path / "truth")).numbers
    assert right["wrong_speaker"] < 0.3 and right["wrong_speaker_rate"] < 0.1 and right["sync"] > 0.75
    assert wrong["wrong_speaker"] > 2 and wrong["wrong_speaker_rate"] > 0.9 and wrong["sync"] < 0.2
