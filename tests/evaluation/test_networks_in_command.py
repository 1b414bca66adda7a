"""Metrics of published networks through the command: discs stand in for faces, small functions for large networks."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from stand_ins import Discs, film, save_network
from test_evaluation_command import run, tone

from itjax.evaluation import __main__ as command
from itjax.evaluation import learned, processes, video, videos
from itjax.evaluation.syncnet import SyncNet
from itjax.media.video_file import write_video

COLORS = ((30, 220), (220, 30))  # green and blue of two persons


def disc(frames=60, face=0):
    """A disc in the colours of a person."""
    drawn = film([(32 + 3 * np.sin(i / 5), 30) for i in range(frames)], size=(64, 64))
    drawn[..., 1:] = np.where(drawn[..., 1:] > 0, COLORS[face], 0)
    return drawn


class Means:
    """A stand-in for Inception: mean colours."""

    def __init__(self, path):
        pass

    def __call__(self, frames):
        return frames.mean((1, 2))


class Clips(Means):
    """A stand-in for I3D: mean colours of 16 frames."""

    def __call__(self, frames):
        return super().__call__(frames)[: len(frames) // 16 * 16].reshape(-1, 16, 3).mean(1)


class Levels(SyncNet):
    """A stand-in for SyncNet."""

    def __init__(self, path):
        pass

    def lips(self, faces):
        return faces[4:].mean((2, 3)) / 100

    def sound(self, mfcc, count):
        return np.resize(mfcc, (count, 224)) / 100


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Flags for all metrics; folders of two dubbed videos, one of which gets another face after a second, and sources."""
    for module in (command, video):
        monkeypatch.setattr(module, "Detector", lambda path: Discs())
    for name, stand_in in (("Inception", Means), ("I3D", Clips), ("SyncNet", Levels)):
        monkeypatch.setattr(learned, name, stand_in)
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda _: {0}, raising=False)
    write_video(tmp_path / "videos" / "same.mp4", disc(), tone(60))
    write_video(tmp_path / "videos" / "pasted.mp4", np.concatenate([disc()[:25], disc(face=1)[25:]]), tone(60))
    for name in ("same", "pasted"):
        write_video(tmp_path / "source" / f"{name}.mp4", disc(80), None)
    weights = [part for name in ("fid", "fvd", "sync") for part in (f"--{name}_weights", "x")]
    csim = ["--csim_weights", save_network(tmp_path / "tiny.onnx")]
    return [tmp_path / "videos", "--source", tmp_path / "source", "--landmarks", "x", *weights, *csim]


def test_all_are_in_the_table_the_report_and_the_plots(given, tmp_path, capsys, monkeypatch):
    status, table, _ = run(capsys, *given, "--out", tmp_path / "report")
    assert status == 0
    rows = {line.split(" | ")[0].strip("| "): line for line in table.splitlines()}
    assert "| 2 | high | CSIM (ArcFace tiny, aligned by face mesh" in rows["csim"] and " to " in rows["csim"]
    assert "Sync-C (SyncNet v2" in rows["sync_c"] and {"sync_d", "sync_lag", "csim_drift"} <= rows.keys()
    assert "| | 2 | low | FID (Inception v3 2015-12-05" in rows["fid"] and "120 vectors against 120" in rows["fid"]
    assert "| | 2 | low | FVD (I3D Kinetics-400" in rows["fvd"] and "6 vectors against 6" in rows["fvd"]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["totals"]["fid"]["clips"] == 2 and "Inception" in report["totals"]["fid"]["description"]
    assert "ArcFace tiny" in report["estimates"]["csim"]["description"]
    pasted, same = (found["curves"]["csim"] for found in report["videos"])
    assert min(same) > 0.95 and pasted[0] > 0.95 and pasted[1] < 0.9  # another face from the second second on
    assert report["videos"][0]["numbers"]["csim_drift"] < -0.1 < report["videos"][1]["numbers"]["csim_drift"]
    plots = {path.name for path in (tmp_path / "report" / "plots").iterdir()}
    assert {"networks.png", "csim_over_time.png"} <= plots
    monkeypatch.setattr(videos, "PIECE_FRAMES", 16)
    assert table.startswith(run(capsys, *given)[1])  # in smaller pieces


def test_what_has_no_value_is_said_and_the_ordinary_measures_stay(given, tmp_path, capsys):
    ordinary = run(capsys, *given[:5])[1]
    for name in ("same", "pasted"):
        write_video(tmp_path / "source" / f"{name}.mp4", np.zeros((80, 64, 64, 3), np.uint8), None)
    (tmp_path / "source" / "same.mp4").unlink()
    without = run(capsys, *given[:5])[1]
    status, table, told = run(capsys, *given)
    assert status == 0 and "sync_c" in table and "csim" not in table and "fid" in table
    assert "pasted.mp4: left out: csim: no face is found in the source" in told
    assert "same.mp4: left out: what needs its source" in told
    assert table.startswith(without) and ordinary != without
    (tmp_path / "source" / "pasted.mp4").unlink()
    assert "left out: fvd: a Fréchet distance needs at least two samples in each set, not 0" in run(capsys, *given)[2]


def test_what_is_missing_is_said_before_any_work(given, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "measure_all", lambda jobs: pytest.fail("work has begun"))
    folder, _, source, _, landmarks = given[:5]
    for flags, why in (
        (["--fvd_weights", "x"], "--fvd_weights needs --source"),
        (["--csim_weights", "x", "--source", source], "--csim_weights needs --landmarks"),
        (["--sync_weights", "x"], "--sync_weights needs --landmarks"),
        (["--csim_weights", tmp_path / "no.onnx", "--source", source, "--landmarks", landmarks], "no.onnx: no such file"),
    ):
        status, table, told = run(capsys, folder, *flags)
        assert status == 2 and not table and why in told and told.count("\n") == 1


def test_two_persons_are_compared_each_with_the_own_voice(given, tmp_path, capsys):
    where = [[(x + 3 * np.sin(i / 5), 30) for i in range(60)] for x in (24, 88)]
    for name in ("same", "pasted"):
        (tmp_path / "videos" / f"{name}.mp4").unlink()
    write_video(tmp_path / "videos" / "two.mp4", film(*where), tone(60))
    write_video(tmp_path / "source" / "two.mp4", film(*where), None)
    faces = ["--face", "15", "21", "33", "39", "--face", "79", "21", "97", "39"]
    _, table, told = run(capsys, *given, *faces)
    csim = next(line for line in table.splitlines() if line.startswith("| csim |"))
    assert float(csim.split("|")[2]) > 0.95 and "sync_c" not in table
    assert "two.mp4: left out: sync_c: it is not known which voice is whose" in told
    for number in (1, 2):
        soundfile.write(tmp_path / "videos" / f"two.{number}.wav", tone(60), 16000)
    assert "sync_c" in run(capsys, *given, *faces)[1]


def test_jax_is_not_loaded_unless_a_network_is_asked_for():
    """Each process that measures would load it, too."""
    code = "import sys, itjax.evaluation.__main__; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
