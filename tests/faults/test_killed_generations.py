"""Whole generations, killed again and again at moments of chance and gone on with, end equal to one that never was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each run is a fork of this process, which has imported everything but has no devices of JAX's yet. A kill comes at any
# moment of a run, from its first call to its last; what is killed is gone on with until it ends. Prints the number of kills,
# of generations that ended, and of kills that left finished chunks behind.
KILLS = """
import os, random, shutil, signal, sys, time
from pathlib import Path
from itjax.commands import infer

root, kills, argv = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
draws, killed, ended, amid = random.Random(4), 0, 0, 0

def run(folder, seconds):
    '''Whether it ended before so many seconds were over.'''
    child = os.fork()
    if child == 0:
        log = os.open(root / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(log, 1), os.dup2(log, 2)
        os._exit(infer.main([*argv, "--save_file", f"{folder}/a", "--save_frames", f"{folder}/a", "--resume"]))
    due = time.monotonic() + seconds
    while time.monotonic() < due:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            assert status == 0, (root / "log").read_text()
            return True
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), (root / "log").read_text()
    return status == 0

def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}

for name in ("first", "whole"):  # the first one compiles, for all others
    (root / name).mkdir()
    began = time.monotonic()
    assert run(root / name, 3600)
    seconds = time.monotonic() - began
expected = contents(root / "whole")
assert sorted(expected) == ["a.mp4", "a.npy"], sorted(expected)
while killed < kills:
    folder = root / str(ended)
    folder.mkdir()
    while not run(folder, draws.uniform(0, seconds) if killed < kills else 3600):
        killed, amid = killed + 1, amid + (folder / "a.mp4").exists()
    assert contents(folder) == expected, f"after {killed} kills"
    shutil.rmtree(folder)
    ended += 1
print(killed, ended, amid)
"""


@pytest.mark.soak  # end_to_end/test_resume.py has a single kill
@pytest.mark.parametrize("kills", [50])
def test_kills_at_moments_of_chance_change_no_byte(kills, quick_flags, talk, face, tmp_path):
    voice = ["--image", str(face), "--audio", str(talk(41))]  # 10 chunks
    command = [sys.executable, "-c", KILLS, str(tmp_path), str(kills), *quick_flags, *voice]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    killed, ended, amid = map(int, done.stdout.split()[-3:])
    print(f"{killed} kills, {amid} of them amid the chunks, in {ended} generations")
    assert killed >= kills and ended >= 1
