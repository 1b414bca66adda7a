"""Memory does not grow with the length of the video: pictures, speech and sources come and go chunk by chunk."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

# eight new frames a chunk: their pictures, if they were kept, would be seen in the memory
SAMPLING = ("--mode", "streaming", "--frame_num", "13", "--motion_frame", "5", "--sample_steps", "1")
ROOT = Path(__file__).parents[2]
# Runs infer.py and prints the process's peak memory (VmHWM, in MB) after each chunk.
MEASURED = """
import re, sys
from itjax.commands import infer
from itjax.media import writer

append, peaks = writer.VideoWriter.append, []
def measured(self, *chunk):
    append(self, *chunk)
    peaks.append(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024)
writer.VideoWriter.append = measured
status = infer.main(sys.argv[1:])
print(*peaks)
sys.exit(status)
"""


@pytest.fixture(scope="module")
def peaks(weight_flags):
    """peaks(flags) -> peak memory after each chunk, of a process that compiles nothing if flags were used before."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def measure(folder: Path, *flags: object) -> list[float]:
        command = [sys.executable, "-c", MEASURED, *weight_flags, *SAMPLING, "--save_file", folder / "out", *flags]
        done = subprocess.run([str(x) for x in command], env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        return [float(peak) for peak in done.stdout.splitlines()[-1].split()]

    return measure


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
def test_memory_does_not_grow_with_length(peaks, run, talk, tmp_path):
    frames = lambda chunks: 5 + 8 * chunks
    source = "--video", film(tmp_path / "film.mp4", frames(100))
    assert run(*source, "--audio", talk(frames(1)), *SAMPLING).status == 0  # compiles, for the other processes too
    short = peaks(tmp_path, *source, "--audio", talk(frames(10)))
    long = peaks(tmp_path, *source, "--audio", talk(frames(100)))
    assert (len(short), len(long)) == (10, 100)
    # All frames of 100 chunks in float32 are 30 MB, those of the film 185 MB. Measured: up to 10 MB within a run (the
    # allocator settles), and up to 50 MB between two processes of the same command.
    assert long[-1] - long[9] < 15
    assert long[-1] - short[-1] < 100
