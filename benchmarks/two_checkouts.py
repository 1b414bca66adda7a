"""Compares the time of a chunk of the tiny preset in two checkouts of this repository, alternating between them.

    python benchmarks/two_checkouts.py OLD NEW [--frames 13|81] [--rounds 150]

Each checkout runs in its own process, with its own `cpu_chunk.py`. They alternate chunk by chunk, and the order changes
every round, so that other load on the machine affects both equally, which is not the case in two consecutive runs.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

WORKER = """
import sys, time
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/benchmarks"]
import jax
jax.config.update("jax_default_matmul_precision", "highest")
import cpu_chunk
from itjax.config import Sampler
frames = int(sys.argv[2])
inputs = cpu_chunk.inputs(Sampler(frame_num=frames, motion_frames=cpu_chunk.MOTION[frames], steps=4))
parts = cpu_chunk.chunk_and_parts(*inputs)
for run in parts.values():
    jax.block_until_ready(run())
print(*(name.split("(")[0].strip().replace(" ", "_") for name in parts), flush=True)
for _ in sys.stdin:
    seconds = []
    for run in parts.values():
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    print(*seconds, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old", type=Path, help="folder of the old checkout")
    parser.add_argument("new", type=Path, help="folder of the new checkout")
    parser.add_argument("--frames", choices=("13", "81"), default="13", help="frames per chunk (%(default)s)")
    parser.add_argument("--rounds", type=int, default=150, help="chunks per checkout (%(default)s)")
    args = parser.parse_args()
    folders = args.old.resolve(), args.new.resolve()
    workers = [start(folder, args.frames) for folder in folders]
    names, _ = (worker.stdout.readline().split() for worker in workers)
    rounds: list[tuple[list[float], list[float]]] = []
    for number in range(args.rounds):
        order = (0, 1) if number % 2 else (1, 0)
        seconds = {which: turn(workers[which]) for which in order}
        rounds.append((seconds[0], seconds[1]))
    for worker in workers:
        worker.stdin.close()
        worker.wait()
    print(f"{args.frames} frames, {args.rounds} rounds; new/old: fastest, medians, middle half of pairs")
    for number, name in enumerate(names):
        old, new = ([times[number] for times in side] for side in zip(*rounds, strict=True))
        low, _, high = statistics.quantiles([b / a for a, b in zip(old, new, strict=True)], n=4)
        medians = statistics.median(new) / statistics.median(old)
        print(f"{name:10} {min(old):.4f} s  {min(new) / min(old):.3f}  {medians:.3f}  {low:.3f} to {high:.3f}")


def start(folder: Path, frames: str) -> subprocess.Popen:
    command = [sys.executable, "-c", WORKER, str(folder), frames]
    return subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def turn(worker: subprocess.Popen) -> list[float]:
    """Runs one chunk; returns the seconds of the chunk and of its parts."""
    worker.stdin.write("\n")
    worker.stdin.flush()
    return [float(seconds) for seconds in worker.stdout.readline().split()]


if __name__ == "__main__":
    main()
