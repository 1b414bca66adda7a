"""A run of infer.py that is killed and gone on with equals one that never was, to the byte."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from itjax.generation import journal

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of the processes: the first one compiles, the others read what it compiled."""
    return os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("xla"))}


def chunks_kept(folder: Path) -> int:
    found = journal.load(folder)
    return found.chunks if found else 0


@pytest.mark.slow
def test_killed_and_resumed_equals_never_killed(
    quick_flags, environment, run, talk, decode, face, tmp_path, no_weights_read
):
    voice = "--image", str(face), "--audio", str(talk(41))  # 10 chunks

    killed_run, whole_run = tmp_path / "killed", tmp_path / "whole"

    def start(folder, *more):
        folder.mkdir(exist_ok=True)
        files = "--save_file", str(folder / "out"), "--save_frames", str(folder / "out")
        command = [sys.executable, str(ROOT / "infer.py"), *quick_flags, *voice, *files, *more]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def done(process):
        out, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return out

    killed = start(killed_run)
    while chunks_kept(killed_run / "out.resume") < 2:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.002)
    killed.kill()
    killed.communicate()
    kept = journal.load(killed_run / "out.resume")
    assert 2 <= kept.chunks < 10 and kept.frames == 1 + 4 * kept.chunks
    left_behind = decode(killed_run / "out.mp4")

    again = lambda *flags: run(*voice, "--save_frames", killed_run / "out", *flags, save_file="killed/out")
    refused = again()
    assert refused.status == 2
    assert f"out.mp4 is unfinished: {kept.frames} frames of an earlier run are kept" in refused.said
    changed = again("--resume", "--base_seed", "7", "--sample_steps", "2")
    assert changed.status == 2
    assert "base_seed: 42 before, 7 now" in changed.said and "'steps': 1" in changed.said

    assert f"going on after {kept.frames} frames" in done(start(killed_run, "--resume"))
    done(start(whole_run))
    assert np.array_equal(np.load(killed_run / "out.npy"), np.load(whole_run / "out.npy"))
    assert (killed_run / "out.mp4").read_bytes() == (whole_run / "out.mp4").read_bytes()
    whole = decode(whole_run / "out.mp4")
    assert len(whole.frames) == 41
    assert np.array_equal(left_behind.frames, whole.frames[: kept.frames])
    assert 0 <= left_behind.seconds_of_sound - kept.frames / 25 < 1024 / 48_000
    assert not (killed_run / "out.resume").exists()

    finished = again("--resume")
    assert finished.status == 0
    assert "out.mp4 is finished already: nothing to do" in finished.out
