"""Compiles the programs of a run for a TPU topology (no TPU needed), and prints each one's memory per chip.

    pip install libtpu; python -m benchmarks.tpu_memory --topology v5e:2x4 --size 480 --persons 1

The networks are the published ones in bfloat16; only shapes are used. `arguments` is the chip's part of parameters and
inputs, `temporary` is additional memory while the program runs.
"""

import argparse
import os
import time

os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "JAX_PLATFORMS": "cpu"}

import jax
from jax.experimental import topologies

from benchmarks.abstract_programs import SIZES, programs
from itjax import configs
from itjax.parallel.sharding import make_mesh
from itjax.weights.specs import network_specs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--topology", default="v5e:2x4")
    parser.add_argument("--size", choices=SIZES, default="480")
    parser.add_argument("--persons", type=int, choices=(1, 2), default=1)
    parser.add_argument("--branches_in_turn", action="store_true")
    args = parser.parse_args()
    bounds = {"chip_config_name": "default", "chips_per_host_bounds": (2, 2, 1), "num_slices": 1}
    jax.default_backend = lambda: "tpu"  # which chooses the attention kernel
    devices = list(topologies.get_topology_desc(args.topology, "tpu", **bounds).devices)
    networks = configs.PRESETS["infinitetalk-14b"].networks
    mesh = make_mesh(heads=networks.dit.num_heads, devices=devices)
    print(
        f"{args.topology}, mesh {dict(mesh.shape)}, {args.size}p, {args.persons} person(s), bfloat16, jax {jax.__version__}"
    )
    specs = network_specs(networks)
    for spec in specs.values():
        _ = spec.abstract  # traced before the mesh is set: its devices cannot execute anything
    with jax.set_mesh(mesh):
        for name, function, inputs in programs(
            networks, specs, mesh, *SIZES[args.size], args.persons, args.branches_in_turn
        ):  # fmt: skip
            start = time.perf_counter()
            memory = jax.jit(function).trace(*inputs).lower(lowering_platforms=("tpu",)).compile().memory_analysis()
            gib = [n / 2**30 for n in (memory.argument_size_in_bytes, memory.temp_size_in_bytes)]
            seconds = time.perf_counter() - start
            print(
                f"{name:10} arguments {gib[0]:6.2f} GiB  temporary {gib[1]:6.2f} GiB  compiled in {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
