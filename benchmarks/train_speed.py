"""Measures a training step on this machine's devices for each remat policy: seconds, ratio to a forward pass, memory.

    python benchmarks/train_speed.py                      # layers of the 1.3B network's width, on a GPU or TPU
    python benchmarks/train_speed.py --dim 96 --ffn_dim 160 --heads 4 --layers 3 --size 48 64 --frames 17   # quick test

Random weights and clips; the audio parts are trained. Each policy runs in its own process, for separate memory peaks.
"""

import argparse
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from itjax.config import DiTSizes, Networks
from itjax.configs.training import PUBLISHED
from itjax.models.dit import REMAT_POLICIES, init
from itjax.parallel.sharding import make_mesh, with_shardings
from itjax.records import SPEECH_MARGIN
from itjax.training import data, flops, objective, parameters, state, step
from itjax.training.objective import Batch
from itjax.training.throughput import memory_in_use, peak_flops


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    number = {"type": int, "metavar": "N"}
    parser.add_argument("--dim", **number, default=1536, help="width (%(default)s)")
    parser.add_argument("--ffn_dim", **number, default=8960, help="width of the MLP (%(default)s)")
    parser.add_argument("--heads", **number, default=12, help="attention heads (%(default)s)")
    parser.add_argument("--layers", **number, default=8, help="layers (%(default)s)")
    parser.add_argument("--size", **number, nargs=2, default=(480, 832), help="height and width in pixels (%(default)s)")
    parser.add_argument("--frames", **number, default=81, help="frames per clip (%(default)s)")
    parser.add_argument("--batch", **number, default=1, help="examples per device (%(default)s)")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="type of matrix products (%(default)s)"
    )
    parser.add_argument("--steps", **number, default=10, help="number of timed steps (%(default)s)")
    parser.add_argument("--remat", choices=REMAT_POLICIES, help="only this policy; default: all, one after another")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.remat:
        measure(args)
        return
    for policy in REMAT_POLICIES:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--remat", policy], check=False)


def measure(args: argparse.Namespace) -> None:
    sizes = DiTSizes(dim=args.dim, ffn_dim=args.ffn_dim, num_heads=args.heads, num_layers=args.layers)
    devices = jax.devices()
    settings = replace(PUBLISHED, batch=args.batch * len(devices), dtype=args.dtype, remat=args.remat)
    mesh = make_mesh(1, 1, heads=args.heads, devices=devices)
    with jax.set_mesh(mesh):
        frozen, train_state = weights(sizes, settings, mesh)
        batch = data.shard_batch(random_batch(args, sizes, settings.batch), step.batch_sharding(mesh))
        null_text, good = jnp.zeros((sizes.text_len, sizes.text_dim)), jnp.asarray(True)
        advance = step.compile_step(settings, sizes, train_state, mesh)
        draws = jax.jit(lambda: objective.draw_randoms(batch, 0, settings.times, settings.dropout))()
        forward = jax.jit(partial(step.losses_of, settings, sizes))
        seconds, forwards = [], []
        for _ in range(args.steps + 1):  # steps and forward passes alternate, as the machine's speed drifts
            start = time.perf_counter()
            train_state, report = advance(train_state, good, frozen, batch, null_text)
            good = jax.block_until_ready(report.good)
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
            jax.block_until_ready(forward(train_state.trainable, frozen, batch, draws, null_text))
            forwards.append(time.perf_counter() - start)
    trained = frozenset(parameters.flat(train_state.trainable))
    work = flops.train_flops(replace(Networks(), dit=sizes), latents_of(args), trained, settings.batch)
    median, forward_median = statistics.median(seconds[1:]), statistics.median(forwards[1:])
    peak = sum(peak_flops(device) or float("nan") for device in devices)
    memory = ", ".join(f"{name} {value:.2f}" for name, value in memory_in_use().items())
    print(f"remat {args.remat}, {len(devices)} x {devices[0].device_kind}, first step {seconds[0]:.1f} s, then a step:")
    print(
        f"  {median:.3f} s ({min(seconds[1:]):.3f} to {max(seconds[1:]):.3f}), {median / forward_median:.2f} forwards",
        end=", ",
    )
    print(
        f"{work / 1e12:.3g} TFLOP, {work / median / 1e12:.4g} TFLOP/s, share of peak {work / median / peak:.3f}, {memory}",
        flush=True,
    )


def weights(sizes: DiTSizes, settings, mesh) -> tuple[dict, state.TrainState]:
    """Frozen parameters and the state, initialised on their shards."""
    abstract = jax.eval_shape(lambda: init(sizes, jax.random.key(0)))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, with_shardings(abstract, mesh))
    leaves = parameters.flat(jax.jit(lambda: init(sizes, jax.random.key(0)), out_shardings=shardings)())
    trained_paths = parameters.flat(parameters.abstract(sizes, settings.trained)[0])
    frozen = {path: leaf.astype(settings.dtype) for path, leaf in leaves.items() if path not in trained_paths}
    trained = parameters.nested({path: leaves[path] for path in trained_paths})
    return parameters.nested(frozen), state.sharded_initial_state(trained, settings.optimizer, mesh)


def latents_of(args: argparse.Namespace) -> tuple[int, int, int]:
    return (args.frames - 1) // 4 + 1, args.size[0] // 8, args.size[1] // 8


def random_batch(args: argparse.Namespace, sizes: DiTSizes, count: int) -> Batch:
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal((count, *shape), np.float32).astype(np.float16)
    latents = *latents_of(args), sizes.out_dim
    return Batch(
        latents=normal(*latents),
        reference=normal(*latents),
        clip=normal(257, sizes.clip_dim),
        speech=normal(1, args.frames + 2 * SPEECH_MARGIN, sizes.audio.layers, sizes.audio.channels),
        text=normal(sizes.text_len, sizes.text_dim),
        context_latents=np.full(count, 3, np.int32),
        identity=np.arange(count, dtype=np.uint32),
        masks=None,
    )


if __name__ == "__main__":
    main()
