"""Generates a video of very many chunks in one process, and prints what the process holds along the way.

    python benchmarks/soak.py --checkpoint CHECKPOINT --chunks 2000

With a checkpoint of tiny networks (that of the tests, converted), a chunk takes a fraction of a second. Nothing may grow
with the number of chunks: neither memory, nor open files, nor threads. The slope is a least-squares fit without the first
tenth, in which the allocators settle.
"""

import argparse
import os
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

import itjax
from itjax.progress import Bar, Progress

EVERY = 50  # chunks between two lines


class Observer(Progress, Bar):
    """Looks at this process after every chunk."""

    def __init__(self) -> None:
        self.resident: list[float] = []  # MB after each chunk

    def bar(self, total: int, unit: str, done: int = 0) -> Bar:
        return self

    def describe(self, text: str) -> None:
        status = Path("/proc/self/status").read_text()
        self.resident.append(int(status.split("VmRSS:")[1].split()[0]) / 1000)
        if len(self.resident) % EVERY == 2:
            files, threads = len(os.listdir("/proc/self/fd")), int(status.split("Threads:")[1].split()[0])
            print(
                f"{len(self.resident) - 1:6} chunks: {self.resident[-1]:8.1f} MB, {files:4} open files, {threads:4} threads "
                f"({threading.active_count()} of Python)",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Generates very many chunks, and prints memory, open files and threads.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder made by convert_weights.py")
    parser.add_argument("--chunks", type=int, default=2000)
    args = parser.parse_args()
    sampler = itjax.Sampler(frame_num=5, motion_frames=1, steps=1)
    frames = 1 + sampler.new_frames * args.chunks
    with tempfile.TemporaryDirectory() as folder:
        rng, picture, voice = np.random.default_rng(0), Path(folder) / "face.png", Path(folder) / "voice.wav"
        Image.fromarray(rng.integers(0, 255, (96, 96, 3), np.uint8)).save(picture)
        soundfile.write(voice, rng.normal(0, 0.1, frames * 640).astype(np.float32), 16_000)
        observer = Observer()
        request = itjax.Request("somebody talks", picture, {"person1": voice})
        settings = itjax.Settings(Path(folder) / "out", sampler, max_frames=frames)
        itjax.dub(request, settings, itjax.open_weights(args.checkpoint), progress=observer)
    settled = np.array(observer.resident[len(observer.resident) // 10 :])
    slope = np.polyfit(np.arange(len(settled)), settled, 1)[0]
    print(f"{len(observer.resident) - 1} chunks, slope {1000 * slope:.1f} kB per chunk, {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
