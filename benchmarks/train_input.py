"""Training steps per second with the input pipeline and on a single batch in memory, alternating.

    python -m benchmarks.train_input

The tiny preset on a dataset of random clips of one size. As in a run, the loop reads the next batch between two steps and
checks a step's metrics one step later.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp

from itjax import records
from itjax.configs.tiny import PRESET
from itjax.configs.training import TINY
from itjax.models.dit import init
from itjax.parallel.sharding import make_mesh
from itjax.records import Dataset
from itjax.training import data, examples, parameters, random_data, state, step
from itjax.training.config import Training
from itjax.training.objective import Batch
from itjax.training.state import TrainState


class Loop:
    """A training state and the inputs of its steps; `run` continues from it."""

    def __init__(self, settings: Training, dataset: Dataset, mesh: jax.sharding.Mesh):
        sizes = PRESET.networks.dit
        all_parameters = parameters.flat(init(sizes, jax.random.key(0)))
        trained_paths = parameters.flat(parameters.abstract(sizes, settings.trained)[0])
        self.frozen = parameters.nested({path: leaf for path, leaf in all_parameters.items() if path not in trained_paths})
        trained = parameters.nested({path: all_parameters[path] for path in trained_paths})
        self.now: TrainState = state.sharded_initial_state(trained, settings.optimizer, mesh)
        self.step = step.compile_step(settings, sizes, self.now, mesh)
        self.null_text = jnp.asarray(records.null_prompts(dataset)[0])
        self.good = jnp.asarray(True)

    def run(self, batches: Iterator[Batch], steps: int) -> float:
        """Runs the steps; returns steps per second."""
        previous_good, start = self.good, time.perf_counter()
        for batch in itertools.islice(batches, steps):
            self.now, report = self.step(self.now, self.good, self.frozen, batch, self.null_text)
            assert bool(previous_good), "the loss is not finite"
            self.good = previous_good = report.good
        jax.block_until_ready(self.now)
        return steps / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=25, help="steps per measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=50, help="measurements of each kind, alternating (%(default)s)")
    parser.add_argument("--batch", type=int, default=TINY.batch, help="examples per step (%(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = random_data.write_dataset(Path(folder) / "data", PRESET, random_data.LAYOUT, ((48, 64),), clips=48)
        settings = replace(TINY, batch=args.batch, data=str(dataset.folder))
        mesh = make_mesh(1, 1, heads=PRESET.networks.dit.num_heads)
        with jax.set_mesh(mesh):
            measure(settings, dataset, mesh, args.steps, args.rounds)


def measure(settings: Training, dataset: Dataset, mesh: jax.sharding.Mesh, steps: int, rounds: int) -> None:
    places = examples.split(dataset, settings.references, 0).train
    stream = data.Stream(dataset, settings, places, mesh)
    read = (batch for batch, _ in stream)
    repeated = itertools.repeat(next(read))
    loop = Loop(settings, dataset, mesh)
    start = time.perf_counter()
    loop.run(repeated, 5)
    seconds, size = time.perf_counter() - start, "x".join(map(str, next(repeated).latents.shape))
    print(f"{os.cpu_count()} cores, jax {jax.__version__}, latents {size}, compiled in {seconds:.1f} s")
    loop.run(read, 5)
    kinds = {"held": repeated, "read": read}
    seconds_of: dict[str, list[float]] = {"held": [], "read": []}
    for number in range(rounds):  # the kinds alternate in which is first, as the machine's speed drifts
        for kind in ("held", "read") if number % 2 else ("read", "held"):
            seconds_of[kind].append(steps / loop.run(kinds[kind], steps))
    memory, pipeline = (rounds * steps / sum(seconds_of[kind]) for kind in ("held", "read"))
    ratios = sorted(alone / with_input for alone, with_input in zip(seconds_of["held"], seconds_of["read"], strict=True))
    low, middle, high = (ratios[int(at * (rounds - 1))] for at in (0.25, 0.5, 0.75))
    print(f"steps a second over {rounds} x {steps}: {memory:.2f} on one batch in memory, {pipeline:.2f} with input")
    print(f"ratio {pipeline / memory:.3f}; of each pair: median {middle:.3f}, half of them {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
