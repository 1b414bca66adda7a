"""Killed and resumed equals never killed, byte by byte."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import small_loop
from small_loop import CHUNK

# What the killed processes run. It tells of each chunk that it kept; with `waits`, it ends by a kill alone.
LOOP = f"import sys\nsys.path.insert(0, {str(Path(small_loop.__file__).parent)!r})\nfrom small_loop import loop\n"

# Forks one process for each call to the system by which the writer changes the disk, and kills it in front of the call
# (in the middle of it, where it writes). Prints how many calls there are.
KILL_AT_EACH_CALL = (
    LOOP
    + """
import itertools, os, pathlib, shutil, signal

def killing(call, at, counter):
    def wrapped(*args, **kwargs):
        if next(counter) == at:
            if call is pwrite:
                call(args[0], args[1][: len(args[1]) // 2], args[2])
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapped

pwrite = os.pwrite

def forked(folder, kill_at=None):
    child = os.fork()
    if child == 0:
        counter = itertools.count()
        if kill_at is not None:
            for name in ("pwrite", "ftruncate", "truncate", "fsync", "replace", "rmdir", "unlink"):
                setattr(os, name, killing(getattr(os, name), kill_at, counter))
        loop(folder, 3)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status == 0

def contents(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}

root = sys.argv[1]
os.mkdir(root + "/never")
assert forked(root + "/never")
expected = contents(root + "/never")
assert sorted(expected) == ["a.mp4", "a.npy"], sorted(expected)
for at in itertools.count():
    folder = f"{root}/{at}"
    os.mkdir(folder)
    if forked(folder, at):
        break
    forked(folder, 6)  # and once more soon after it was resumed
    assert forked(folder)
    assert contents(folder) == expected, at
    shutil.rmtree(folder)
print("calls", at)
"""
)


# Prints a digest of a chunk with movement in it, and of some sound.
ENCODE = """
import hashlib, itertools
import numpy as np
from itjax.media import fragments, sound_track

y, x = np.mgrid[:96, :96]
frames = np.stack([np.stack([(2 * x + 3 * k) % 256, (y + k) % 256, (x + y) % 256], -1) for k in range(9)])
noise = np.random.default_rng(0).normal(0, 0.1, (9000, 2)).astype(np.float32)
sound = list(itertools.islice(sound_track.packets(sound_track.SoundTrack(44100, 2, lambda: iter([noise]))), 12))
data = fragments.fragment(fragments.Format(96, 96, 25, None, ""), fragments.Counts(), frames.astype(np.uint8), [])
print(hashlib.sha256(data).hexdigest(), hashlib.sha256(b"".join(sound)).hexdigest())
"""


def start(code, *args):
    command = [sys.executable, "-c", code + f"\nloop(*{args!r})" if args else code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def frames_in(file):
    with av.open(str(file)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_kill_at_any_call_to_the_system_changes_no_byte(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILL_AT_EACH_CALL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 30  # a good ten for each of three chunks


def opened_at(process):
    """The chunk that the process goes on with."""
    word, chunk = process.stdout.readline().split()
    assert word == "open"
    return int(chunk)


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.soak)])
def test_kills_at_random_moments_change_no_byte_and_leave_a_video_that_plays(kills, tmp_path):
    never, killed = tmp_path / "never", tmp_path / "killed"
    never.mkdir(), killed.mkdir()
    chunks = 7 * kills + 2
    process = start(LOOP, str(never), chunks)
    process.communicate()
    assert process.returncode == 0

    draws, kept = random.Random(5), 0
    for attempt in range(kills):
        process = start(LOOP, str(killed), 7 * (attempt + 1), True)
        assert opened_at(process) >= kept
        for _ in range(draws.randint(1, 6)):
            kept = int(process.stdout.readline().split()[1])
        time.sleep(draws.uniform(0, 0.02))  # somewhere in the next chunks, or while it waits
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert frames_in(killed / "a.mp4") >= CHUNK * kept
        assert len(np.load(killed / "a.npy")) % CHUNK == 0
    process = start(LOOP, str(killed), chunks)
    assert opened_at(process) >= kept
    process.communicate()
    assert process.returncode == 0
    for name in ("a.mp4", "a.npy"):
        assert (killed / name).read_bytes() == (never / name).read_bytes()
    assert sorted(os.listdir(killed)) == ["a.mp4", "a.npy"]


def test_the_encoders_depend_on_nothing_but_the_frames():
    """Equal bytes, whatever happened to be in the memory that they are given (glibc fills it with what we say)."""
    digests = set()
    for fill in ("0", "77", "255"):
        environment = {**os.environ, "MALLOC_PERTURB_": fill}
        digests.add(subprocess.check_output([sys.executable, "-c", ENCODE], env=environment, text=True))
    assert len(digests) == 1
