"""The command says in one line what it cannot measure, and measures the rest."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from itjax.demo import MEDIA
from itjax.errors import UserError
from itjax.evaluation import __main__ as command
from itjax.evaluation import processes, videos
from itjax.evaluation.__main__ import main
from itjax.evaluation.truths import read_truth
from itjax.evaluation.video import Job, measure
from itjax.media.fragments import Counts, Format, defragment, fragment
from itjax.media.video_file import write_video
from itjax.media.writer import finished_mark


def film(frames=60, size=(48, 64)):
    """A picture that moves and changes a little."""
    picture = np.random.default_rng(0).integers(60, 190, (size[0] + 8, size[1] + 60, 3), np.uint8)
    shifts = np.abs(np.arange(frames) % 52 - 26)
    return np.stack([picture[: size[0], shift : shift + size[1]] for shift in shifts])


def tone(frames, level=0.1):
    noise = np.random.default_rng(0).normal(size=frames * 640)
    return (level * noise * (np.arange(frames * 640) % 32000 < 20000)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """A folder of one good video."""
    write_video(tmp_path / "videos" / "good.mp4", film(), tone(60))
    return tmp_path / "videos"


@pytest.fixture
def one_process(monkeypatch):
    """Processes take seconds to start: without them."""
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda _: {0}, raising=False)


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_a_video_alone_is_measured_without_a_face(folder, capsys):
    status, table, told = run(capsys, folder)
    assert status == 0 and "good.mp4: left out: lips, head" in told and "--landmarks" in told and told.count("\n") == 1
    for name in ("color_drift", "sharpness_drift", "frozen", "flashes"):
        assert f"| {name} |" in table
    assert "sync" not in table


def test_what_is_bad_is_said_and_the_rest_is_measured(folder, capsys, one_process):
    write_video(folder / "one.mp4", film(1), None)
    write_video(folder / "mute.mp4", film(), None)
    write_video(folder / "silent.mp4", film(), tone(60, 0.0))
    write_video(folder / "short.mp4", film(20), tone(20))
    (folder / "broken.mp4").write_bytes((folder / "good.mp4").read_bytes()[:3000])
    (folder / "text.mp4").write_text("no video")
    (folder / "empty.mp4").write_bytes(b"")
    status, table, told = run(capsys, folder, "--out", folder.parent / "report")
    lines = told.splitlines()
    said = lambda name, what: any(f"{name}.mp4" in line and what in line for line in lines)
    assert status == 0 and "| frozen | 0.000 | 0.000 to 0.000 | 4 |" in table
    assert said("one", "one frame only") and said("mute", "no audio track") and said("silent", "it is silent")
    assert said("short", "less than two seconds")
    assert all(said(name, "") for name in ("broken", "text", "empty")) and not any("Traceback" in line for line in lines)
    report = (folder.parent / "report" / "report.md").read_text()
    assert "# Evaluation of 4 of 8 videos" in report and all(f"- {line}" in report for line in lines)


def test_nothing_to_measure_is_an_error(tmp_path, capsys):
    assert run(capsys, tmp_path)[0] == 2
    status, _, told = run(capsys, tmp_path)
    assert "no video in this folder" in told
    status, _, told = run(capsys, tmp_path / "none")
    assert status == 2 and "no such folder" in told
    (tmp_path / "text.mp4").write_text("no video")
    status, table, told = run(capsys, tmp_path)
    assert status == 2 and not table and "none of 1 videos could be measured" in told
    status, _, told = run(capsys, tmp_path, "--truth", tmp_path / "none")
    assert status == 2 and "--truth" in told and "no such folder" in told
    status, _, told = run(capsys, tmp_path, "--floor", tmp_path)
    assert status == 2 and "--floor needs --source" in told
    status, _, told = run(capsys, tmp_path, "--landmarks", tmp_path / "none.tflite")
    assert status == 2 and ("no such file" in told or "ai-edge-litert" in told)
    status, _, told = run(capsys, tmp_path, "--frame_num", "17", "--motion_frame", "17")
    assert status == 2 and "--motion_frame 17" in told


@pytest.mark.parametrize(
    "flags, why",
    [
        ("--frame_num 0", "--frame_num 0"),
        ("--motion_frame 5", "--motion_frame needs --frame_num"),
        ("--floor_db 3", "--floor_db needs --source"),
        ("--source SOURCE --floor_db nan", "nan: must be finite"),
        ("--face 1 1 9 9", "--face needs --landmarks"),
        ("--landmarks NONE --face 9 9 9 9", "--face 9 9 9 9: LEFT must be less than RIGHT"),
        ("--out FILE", "cannot write"),
    ],
)
def test_a_flag_without_effect_is_refused_before_anything_is_measured(folder, capsys, monkeypatch, flags, why):
    monkeypatch.setattr(command, "measure_all", lambda jobs: pytest.fail("something was measured"))
    (folder.parent / "file").touch()
    places = {"SOURCE": folder, "FILE": folder.parent / "file", "NONE": folder / "none.tflite"}
    try:
        status, _, told = run(capsys, folder, *(places.get(flag, flag) for flag in flags.split()))
    except SystemExit as ended:  # argparse's own
        status, told = ended.code, capsys.readouterr().err
    assert status == (3 if "--out" in flags else 2) and why in told


@pytest.mark.parametrize(
    "content, why",
    [
        (None, "there is no file of the same name (.json) in this folder"),
        ("{", "good.json"),
        ("[]", "is not the truth of a drawn clip"),
        (
            '{"num_frames": 3, "size": [8, 8], "camera": {"pan_x": [0], "pan_y": [0], "zoom": [1]}, "people": []}',
            "not the truth",
        ),
    ],
)
def test_a_truth_that_does_not_fit_is_left_out(folder, tmp_path, content, why):
    truth = tmp_path / "truth"
    truth.mkdir()
    if content is not None:
        (truth / "good.json").write_text(content)
    measured = measure(Job(folder / "good.mp4", truth=truth))
    assert not measured.error and "color_drift" in measured.numbers
    assert any("what needs its truth" in line and why in line for line in measured.left_out)


@pytest.mark.parametrize(
    "keys, value, why",
    [
        (("num_frames",), 0, "head_box has the shape (153, 4), but must have (0, 4)"),
        (("num_frames",), 10**15, "head_box has the shape (153, 4), but must have (1000000000000000, 4)"),
        (("people",), [], "there are no people"),
        (("camera", "zoom"), [0] * 153, "zoom is 0 in a frame"),
        (("people", 0, "phonemes"), None, "TypeError"),
        (("people", 0, "phonemes", 0), ["m", 0], "ValueError"),
        (("people", 0, "identity"), None, "AttributeError"),
        (("people", 0, "identity", "collar"), None, "identity.collar is 'None'"),
        (("people", 0, "identity", "skin"), [1, 2], "identity.skin is '(1, 2)'"),
        (("people", 0, "seen", "left_eye"), None, "left_eye has the shape (), but must have (153, 2)"),
        (("people", 0, "seen", "right_eye", 0, 1), None, "right_eye has values that are no numbers"),
        (("people", 0, "seen", "head_box", 7), [None] * 4, "head_box has values that are no numbers"),
        (("people", 0, "seen", "head_box", 0), [9, 9, 20, 9], "head_box has a frame in which the bottom"),
        (("people", 0, "mouth", "jaw"), [0.5], "jaw has the shape (1,), but must have (153,)"),
    ],
)
def test_a_truth_with_an_unusable_value_is_refused(tmp_path, keys, value, why):
    content = json.loads((MEDIA / "portrait.json").read_text(encoding="utf-8"))
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (tmp_path / "good.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="is not the truth of a drawn clip") as refused:
        read_truth(tmp_path / "good.json")
    assert "good.json" in str(refused.value) and why in str(refused.value)


def test_a_source_is_followed_or_named(folder, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    job = Job(folder / "good.mp4", source=source, floor_db=40.0)
    assert any("there is no file of the same name (.mp4" in line for line in measure(job).left_out)
    shutil.copy(folder / "good.mp4", source / "good.mp4")
    numbers = measure(job).numbers
    assert numbers["camera_follow"] == pytest.approx(1) and numbers["camera_error"] == 0
    assert "outside_db" not in numbers  # nothing says where the speaker is
    Image.fromarray(film(1)[0]).save(source / "good.png")
    (source / "good.mp4").unlink()
    assert "camera_error" in measure(job).numbers
    (source / "good.png").write_bytes(b"broken")
    assert any("what needs its source" in line for line in measure(job).left_out)


def test_a_long_video_is_read_in_pieces(folder, monkeypatch):
    whole = measure(Job(folder / "good.mp4")).numbers
    monkeypatch.setattr(videos, "PIECE_FRAMES", 7)
    assert measure(Job(folder / "good.mp4")).numbers == pytest.approx(whole)


def test_the_chunks_of_a_generated_video_are_known_from_its_keyframes(tmp_path):
    frames, parts, before = film(60), [], Counts()
    fmt = Format(48, 64, 25, None, finished_mark("0123456789abcdef" * 2))
    for first, last in ((0, 17), (17, 29), (29, 41), (41, 60)):
        parts.append(fragment(fmt, before, frames[first:last], []))
        before = Counts(before.chunks + 1, last, 0)
    (tmp_path / "fragmented.mp4").write_bytes(b"".join(parts))
    defragment(tmp_path / "fragmented.mp4", tmp_path / "made.mp4", fmt.comment)
    assert videos.borders_in(tmp_path / "made.mp4") == [17, 29, 41]
    assert "seam" in measure(Job(tmp_path / "made.mp4")).numbers
    defragment(tmp_path / "fragmented.mp4", tmp_path / "other.mp4", "holiday")
    assert videos.borders_in(tmp_path / "other.mp4") == []


def test_processes_give_what_one_process_gives(folder):
    shutil.copy(folder / "good.mp4", folder / "second.mp4")
    command = [sys.executable, "-m", "itjax.evaluation", str(folder)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    alone = measure(Job(folder / "good.mp4")).numbers["color_drift"]
    assert f"| color_drift | {alone:.3f} | {alone:.3f} to {alone:.3f} | 2 |" in told.stdout


def test_a_process_that_dies_loses_its_video_only(folder, monkeypatch):
    jobs = [Job(folder / "good.mp4"), Job(folder / "killer.mp4")]
    monkeypatch.setattr(processes, "_together", dying_with("killer"))
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    good, bad = processes.measure_all(jobs)
    assert "color_drift" in good.numbers and "killer.mp4: the process that measured it ended" in bad.error


def dying_with(name):
    """`_together` of processes that die as soon as one of them gets the video `name`."""

    def together(jobs, workers):
        if any(job.video.stem == name for job in jobs):
            return list(jobs)
        for job in jobs:
            yield measure(job)
        return []

    return together
