"""Runs each program of a chunk with the published networks on one device, and prints its time, memory and share of the peak.

    python -m benchmarks.published_chunk --size 480                   # 640x640, 81 frames
    python -m benchmarks.published_chunk --pixels 64 64 --layers 1    # to try it on a CPU

The weights are random numbers in bfloat16 (the VAE's: float32), made on the device.
"""

import argparse
import statistics
import time
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from benchmarks.abstract_programs import SIZES, programs
from itjax import configs
from itjax.parallel.sharding import make_mesh
from itjax.pipeline.process import exact_float32
from itjax.training.flops import forward_flops
from itjax.training.throughput import GIB, memory_in_use, peak_flops
from itjax.weights.specs import network_specs

LATENTS = 21  # of 81 frames
SPREAD = 0.02  # of the random numbers: activations stay finite through all layers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="480")
    parser.add_argument("--pixels", type=int, nargs=2, metavar=("H", "W"), help="height and width, instead of --size")
    parser.add_argument("--layers", type=int, help="of the DiT (default: all 40)")
    parser.add_argument("--branches_in_turn", action="store_true")
    parser.add_argument("--runs", type=int, default=2, help="timed ones of each program (%(default)s)")
    args = parser.parse_args()
    networks = configs.PRESETS["infinitetalk-14b"].networks
    networks = replace(networks, dit=replace(networks.dit, num_layers=args.layers or networks.dit.num_layers))
    height, width = args.pixels or SIZES[args.size]
    device = jax.devices()[0]
    mesh = make_mesh(heads=networks.dit.num_heads, devices=[device])
    print(f"{device.device_kind}, jax {jax.__version__}, {height}x{width}, 81 frames, {networks.dit.num_layers} layers")
    step_flops = 3 * forward_flops(networks, (LATENTS, height // 8, width // 8))
    made: dict = {}
    with jax.set_mesh(mesh), exact_float32():
        for name, function, inputs in programs(
            networks, network_specs(networks), mesh, height, width, 1, args.branches_in_turn
        ):
            arrays = arguments(name, inputs, made)
            start = time.perf_counter()
            compiled = jax.jit(function).lower(*arrays).compile()
            compiling = time.perf_counter() - start
            memory = compiled.memory_analysis()
            made[name] = jax.block_until_ready(compiled(*arrays))
            seconds = []
            for _ in range(args.runs):
                start = time.perf_counter()
                jax.block_until_ready(compiled(*arrays))
                seconds.append(time.perf_counter() - start)
            median = statistics.median(seconds)
            gib = [n / GIB for n in (memory.argument_size_in_bytes, memory.temp_size_in_bytes)]
            print(
                f"{name:10} {median:8.3f} s ({min(seconds):.3f} to {max(seconds):.3f})  compiled in {compiling:5.1f} s  "
                f"arguments {gib[0]:6.2f} GiB  temporary {gib[1]:6.2f} GiB",
                flush=True,
            )
            if name == "one step":
                peak = peak_flops(device)
                share = f", {step_flops / median / peak:.0%} of the peak" if peak else ""
                print(f"  {step_flops / 1e12:.1f} TFLOP, {step_flops / median / 1e12:.0f} TFLOP/s{share}")
                print(f"  finite: {bool(jnp.isfinite(made[name].latent).all())}")
    print(", ".join(f"{name} {value:.1f}" for name, value in memory_in_use().items()))


def arguments(name: str, inputs: tuple, made: dict) -> tuple:
    """Random inputs, or what earlier programs made."""
    if name == "one step":
        state, conditions = made.pop("begin")
        return made["invariants"], state, made["invariants"].steps, conditions
    if name == "finish":
        return made["invariants"], made["one step"].latent
    leaves, structure = jax.tree.flatten(inputs)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    filled = structure.unflatten([random_leaf(leaf.shape, leaf.dtype, key) for leaf, key in zip(leaves, keys, strict=True)])
    if name == "begin":
        made["invariants"] = filled[0]
    return filled


@partial(jax.jit, static_argnums=(0, 1))
def random_leaf(shape: tuple[int, ...], dtype: jnp.dtype, key: jax.Array) -> jax.Array:
    if jnp.issubdtype(dtype, jnp.floating):
        return SPREAD * jax.random.normal(key, shape, dtype)
    return jnp.ones(shape, dtype)


if __name__ == "__main__":
    main()
