"""The report of drawn videos: perfect ones are perfect, and what was done to the others is what it says."""

import json
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from itjax.evaluation import curves, processes
from itjax.evaluation import report as reports
from itjax.evaluation.__main__ import main
from itjax.media.video_file import write_video
from itjax.synthetic import clip as clips
from itjax.synthetic import mouth, scene

CHUNK = ["--frame_num", "17", "--motion_frame", "5"]
BORDERS = range(17, 100, 12)


class Written(NamedTuple):
    """A report: its folder, and its JSON; the true jaw of the drawn clip."""

    folder: Any
    content: dict
    jaw: np.ndarray

    def numbers(self, name):
        return next(video["numbers"] for video in self.content["videos"] if video["name"] == name)


def drawing(clip, mouths, shown=None):
    return np.stack([picture for picture, _ in scene.frames(shown or clip.scene, mouths, clip.height, clip.width)])


def worse(frames):
    """Steps at borders, frozen frames and a flash."""
    frames = frames.astype(float)
    for border in BORDERS:
        frames[border:] -= 8
    frames[30:40] = frames[30]
    frames[61:63] += 40
    return np.clip(frames, 0, 255).astype(np.uint8)


def films(clip):
    """{name: frames}: the drawn clip, and what was done to it."""
    spoken = clip.spoken[0].mouth
    drawn = drawing(clip, (spoken,))
    other = clips.make((1, 0), len(drawn) / 25, 64, 64)
    return {
        "drawn": drawn,
        "late": drawing(clip, (mouth.Mouth(*(np.roll(values, 3) for values in spoken)),)),
        "worse": worse(drawn),
        "pasted": np.concatenate([drawn[:75], drawing(other, (other.spoken[0].mouth,))[75:]]),
    }


def report(folder, films, clip, *flags):
    """Writes videos that all have the clip's truth, and measures them with one command."""
    truth = json.dumps(clips.truth(clip, [seen for _, seen in clips.frames(clip)]))
    (folder / "truth").mkdir()
    for name, frames in films.items():
        write_video(folder / "videos" / f"{name}.mp4", frames, clip.sound)
        (folder / "truth" / f"{name}.json").write_text(truth)
    with pytest.MonkeyPatch.context() as patch:  # processes take seconds to start
        patch.setattr(processes.os, "sched_getaffinity", lambda _: {0}, raising=False)
        command = [folder / "videos", "--truth", folder / "truth", *flags, "--out", folder / "report"]
        assert main([str(part) for part in command]) == 0
    content = json.loads((folder / "report" / "report.json").read_text())
    return Written(folder / "report", content, clip.spoken[0].mouth.jaw)


@pytest.fixture(scope="module")
def one(tmp_path_factory, learned_once):
    """The report of one drawn person: of all `films`, which have sources and their round trips."""
    folder, clip = tmp_path_factory.mktemp("one"), clips.make((0, 0), 4.0, 64, 64)
    given = films(clip)
    for name in given:
        write_video(folder / "source" / f"{name}.mp4", given["drawn"], None)
        write_video(
            folder / "floor" / f"{name}.mp4", np.stack([cv2.GaussianBlur(x, (0, 0), 1) for x in given["drawn"]]), None
        )
    return report(folder, given, clip, *CHUNK, "--source", folder / "source", "--floor", folder / "floor")


@pytest.fixture(scope="module")
def two(tmp_path_factory, learned_once):
    """The report of two drawn persons, without plots: right, and with their mouths swapped."""
    clip = clips.make((4, 0), 6.0, 64, 128, persons=2)
    mouths = tuple(said.mouth for said in clip.spoken)
    given = {"right": drawing(clip, mouths), "wrong": drawing(clip, mouths[::-1])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "write_plots", lambda *arguments: [])
        return report(tmp_path_factory.mktemp("two"), given, clip)


def test_what_was_drawn_is_in_sync(one):
    numbers = one.numbers("drawn")
    assert numbers["sync"] > 0.9 and numbers["lag"] == 0 and numbers["silence"] < 0.2
    assert numbers["seam"] < 2 and numbers["frozen"] == numbers["flashes"] == 0 and numbers["identity"] > 0.9
    (curve,) = (video["curves"]["color"] for video in one.content["videos"] if video["name"] == "drawn")
    assert len(curve) == 4 and curve[0] == 0


def test_the_table_and_the_plots_are_written(one):
    written, mean = (one.folder / "report.md").read_text(), one.content["estimates"]["sync"]
    assert f"| sync | {mean['mean']:.3f} | {mean['low']:.3f} to {mean['high']:.3f} | 4 |" in written
    plots = sorted(path.name for path in (one.folder / "plots").iterdir())
    assert {"lips.png", "drift.png", "breaks.png", "color_over_time.png"} <= set(plots)
    assert all(f"](plots/{name})" in written for name in plots)
    assert all((one.folder / "plots" / name).read_bytes().startswith(b"\x89PNG") for name in plots)


def test_a_late_mouth_is_late(one):
    numbers = one.numbers("late")
    assert numbers["lag"] == 3 and numbers["sync_at_lag"] > 0.9
    assert numbers["sync"] == pytest.approx(curves.correlation(np.roll(one.jaw, 3), one.jaw), abs=0.1)


def test_breaks_are_found(one):
    numbers, before = one.numbers("worse"), one.numbers("drawn")
    assert numbers["seam"] > 3 and numbers["color_drift"] > before["color_drift"] + 50
    assert numbers["frozen"] > 0.07 and numbers["flashes"] == pytest.approx(2.5) and numbers["largest_flash"] > 20


def test_a_pasted_face_is_another_person(one):
    numbers, before = one.numbers("pasted"), one.numbers("drawn")
    (curve,) = (video["curves"]["identity"] for video in one.content["videos"] if video["name"] == "pasted")
    assert min(curve[:3]) > 0.9 and curve[3] < 0.7
    assert numbers["identity"] < before["identity"] - 0.05


def test_what_changes_outside_is_compared_with_the_round_trip(one):
    drawn, pasted = one.numbers("drawn"), one.numbers("pasted")
    floor = drawn["outside_db"] + drawn["outside_loss_db"]
    assert 20 < floor < 45 and drawn["outside_loss_db"] < -5  # nothing was changed: better than the blurred round trip
    assert pasted["outside_db"] + pasted["outside_loss_db"] == pytest.approx(floor, abs=3)  # other pixels are outside
    assert pasted["outside_loss_db"] > drawn["outside_loss_db"] + 3  # another room in the last second


def test_the_wrong_speaker_is_found(two):
    right, wrong = two.numbers("right"), two.numbers("wrong")
    assert right["wrong_speaker"] < 0.3 and right["wrong_speaker_rate"] < 0.1 and right["sync"] > 0.75
    assert wrong["wrong_speaker"] > 2 and wrong["wrong_speaker_rate"] > 0.9 and wrong["sync"] < 0.2
    assert right["faces_found"] == pytest.approx(1, abs=0.05) and "wrong_speaker" in two.content["estimates"]
