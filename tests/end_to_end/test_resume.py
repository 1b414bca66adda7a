"""A run of infer.py that is killed and gone on with equals one that never was, to the byte."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from itjax.media import journal

ROOT = Path(__file__).parents[2]


# infer.py, in a process that kills itself amid the third chunk, while the devices work on it
KILLED_IN_CHUNK_3 = """
import os, signal, sys, infer
from itjax.media import writer

def append(run, *args, **kwargs):
    whole(run, *args, **kwargs)
    if run.next_chunk == 2:
        os.kill(os.getpid(), signal.SIGKILL)

whole, writer.VideoWriter.append = writer.VideoWriter.append, append
sys.exit(infer.main())
"""


@pytest.mark.slow
def test_killed_and_resumed_equals_never_killed(quick_flags, run, talk, decode, face, tmp_path, request):
    voice = "--image", str(face), "--audio", str(talk(41))  # 10 chunks

    killed_run, whole_run = tmp_path / "killed", tmp_path / "whole"
    killed_run.mkdir()
    whole_run.mkdir()
    files = "--save_file", str(killed_run / "out"), "--save_frames", str(killed_run / "out")

    def start(*program):
        command = [sys.executable, *program, *quick_flags, *voice, *files]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)

    # never killed, and in this process: what it compiles, the others need not
    assert run(*voice, "--save_frames", whole_run / "out", save_file="whole/out").status == 0
    killed = start("-c", KILLED_IN_CHUNK_3)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = journal.load(killed_run / "out.resume")
    assert kept.chunks == 2 and kept.frames == 9
    left_behind = decode(killed_run / "out.mp4")

    request.getfixturevalue("no_weights_read")  # from here on
    again = lambda *flags: run(*voice, "--save_frames", killed_run / "out", *flags, save_file="killed/out")
    refused = again()
    assert refused.status == 2
    assert f"out.mp4 is unfinished: {kept.frames} frames of an earlier run are saved" in refused.said
    changed = again("--resume", "--base_seed", "7", "--sample_steps", "2")
    assert changed.status == 2
    assert "base_seed: 42 before, 7 now" in changed.said and "'steps': 1" in changed.said

    resumed = start("infer.py", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"resuming after {kept.frames} frames" in resumed.stdout
    assert np.array_equal(np.load(killed_run / "out.npy"), np.load(whole_run / "out.npy"))
    assert (killed_run / "out.mp4").read_bytes() == (whole_run / "out.mp4").read_bytes()
    whole = decode(whole_run / "out.mp4")
    assert len(whole.frames) == 41
    assert np.array_equal(left_behind.frames, whole.frames[: kept.frames])
    assert 0 <= left_behind.seconds_of_sound - kept.frames / 25 < 1024 / 48_000
    assert not (killed_run / "out.resume").exists()

    finished = again("--resume")
    assert finished.status == 0
    assert "out.mp4 is already finished: nothing to do" in finished.out
