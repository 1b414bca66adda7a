"""Memory does not grow with the length of the video: pictures, speech and sources come and go chunk by chunk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SHORT, LONG = 10, 80  # chunks
# glibc gives larger arrays back as soon as they are freed; by default it keeps more and more for later, up to 30 MB
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "524288", "MALLOC_TRIM_THRESHOLD_": "524288"}
# Runs infer.py for each list of flags; prints the process's peak memory (VmHWM, in MB) after each chunk of each run.
MEASURED = """
import json, re, sys
from itjax.commands import infer
from itjax.media import writer

append, peaks = writer.VideoWriter.append, []
def measured(self, *chunk):
    append(self, *chunk)
    peaks[-1].append(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024)
writer.VideoWriter.append = measured
for flags in json.loads(sys.argv[1]):
    peaks.append([])
    assert infer.main(flags) == 0
print(json.dumps(peaks))
"""


def film(path: Path, frames: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 240, 320, "yuv420p"
        for i in range(frames):
            picture = np.full((320, 240, 3), i % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_length(quick_flags, talk, tmp_path):
    frames = lambda chunks: 1 + 4 * chunks
    source = "--video", film(tmp_path / "film.mp4", frames(LONG))
    runs = [
        [*quick_flags, *source, "--audio", talk(frames(chunks)), "--save_file", tmp_path / str(chunks)]
        for chunks in (SHORT, LONG)
    ]
    command = [sys.executable, "-c", MEASURED, json.dumps(runs, default=str)]
    variables = os.environ | GIVEN_BACK | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    short, long = json.loads(done.stdout.splitlines()[-1])
    assert (len(short), len(long)) == (SHORT, LONG)
    # all frames of the long run in float32 are 11 MB, those of the film 74 MB; the allocator settles within a few MB
    assert long[-1] - long[SHORT - 1] < 10
    assert long[-1] - short[-1] < 60
