"""Compiles the programs of a run for a TPU topology (no TPU needed), and prints each one's memory per chip.

    pip install libtpu; python benchmarks/tpu_memory.py --topology v5e:2x4 --size 480 --persons 1

The networks are the published ones in bfloat16; only shapes are used. `arguments` is the chip's part of parameters and
inputs, `temporary` is additional memory while the program runs.
"""

import argparse
import os
import time

os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "JAX_PLATFORMS": "cpu"}

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from itjax import configs
from itjax.config import Sampler
from itjax.models.dit import TimeFeatures
from itjax.parallel.sharding import AXES, make_mesh, with_shardings
from itjax.sampling import chunk
from itjax.sampling.chunk import Carry, ChunkInputs, Invariants, Program, Reference
from itjax.sampling.color import ColorStatistics
from itjax.sampling.denoise import EulerSteps
from itjax.weights.specs import network_specs

SIZES = {"480": (640, 640), "720": (960, 960)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--topology", default="v5e:2x4")
    parser.add_argument("--size", choices=SIZES, default="480")
    parser.add_argument("--persons", type=int, choices=(1, 2), default=1)
    args = parser.parse_args()
    bounds = {"chip_config_name": "default", "chips_per_host_bounds": (2, 2, 1), "num_slices": 1}
    devices = list(topologies.get_topology_desc(args.topology, "tpu", **bounds).devices)
    networks = configs.PRESETS["infinitetalk-14b"].networks
    mesh = make_mesh(heads=networks.dit.num_heads, devices=devices)
    print(
        f"{args.topology}, mesh {dict(mesh.shape)}, {args.size}p, {args.persons} person(s), bfloat16, jax {jax.__version__}"
    )
    specs = network_specs(networks)  # before the mesh is set: its devices cannot execute anything
    with jax.set_mesh(mesh):
        for name, function, inputs in programs(networks, specs, mesh, *SIZES[args.size], args.persons):
            start = time.perf_counter()
            memory = jax.jit(function).trace(*inputs).lower(lowering_platforms=("tpu",)).compile().memory_analysis()
            gib = [n / 2**30 for n in (memory.argument_size_in_bytes, memory.temp_size_in_bytes)]
            seconds = time.perf_counter() - start
            print(
                f"{name:10} arguments {gib[0]:6.2f} GiB  temporary {gib[1]:6.2f} GiB  compiled in {seconds:.0f} s",
                flush=True,
            )


def programs(networks, specs, mesh, height: int, width: int, persons: int):
    """Yields (name, function, abstract inputs) for each program that a run compiles."""
    spec = lambda *shape, dtype=jnp.float32: jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P()))
    replicated = lambda tree: jax.tree.map(lambda x: spec(*x.shape, dtype=x.dtype), tree)
    sampler, dit = Sampler(), networks.dit
    program = Program(networks, sampler, jnp.dtype("bfloat16"))
    weights = {n: with_shardings(specs[n].abstract, mesh, jnp.bfloat16) for n in ("dit", "vae", "clip")}
    latents = sampler.num_latents, height // 8, width // 8, 16
    step = EulerSteps(spec(), spec(), TimeFeatures(spec(dit.dim), spec(6, dit.dim)), spec(dtype=jnp.bool_))
    masks = None if persons == 1 else spec(3, height * width // 256)
    color = ColorStatistics(spec(3), spec(3))
    invariants = Invariants(weights["dit"], weights["vae"], spec(2, dit.text_len, dit.text_dim), step, color, masks)
    carry = Carry(spec(sampler.motion_frames, height, width, 3), spec(dtype=jnp.int32))
    audio, reference = dit.audio, Reference(spec(*latents), spec(257, dit.clip_dim), spec(sampler.num_latents, 4))
    windows = spec(persons, sampler.frame_num, audio.window, audio.layers, audio.channels)
    part = ChunkInputs(windows, reference, spec(*latents))
    begin = lambda *inputs: chunk.begin_chunk(program, *inputs)
    state, conditions = jax.eval_shape(begin, invariants, carry, part)
    # as `begin` returns them: keys and values are split over heads, like the kernels that computed them
    heads = lambda x: NamedSharding(mesh, P(*[None] * (len(x.shape) - 2), AXES if x.shape[-2] % mesh.size == 0 else None))
    sharded = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=heads(x)), conditions.keys_values)
    conditions = replicated(conditions)._replace(keys_values=sharded)
    encoders = {"vae": weights["vae"], "clip": weights["clip"]}
    pictures = spec(height, width, 3), spec(224, 224, 3)
    encode = lambda *inputs: chunk.encode_reference(program, *inputs)
    yield "reference", encode, (encoders, *pictures)
    yield "begin", begin, (invariants, carry, part)
    yield "one step", lambda *inputs: chunk.denoise_step(program, *inputs), (invariants, replicated(state), step, conditions)
    yield "finish", lambda *inputs: chunk.finish_chunk(program, *inputs), (invariants, spec(*latents))


if __name__ == "__main__":
    main()
