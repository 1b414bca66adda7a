"""Compiles the training step for a TPU topology (no TPU needed), and prints its memory per chip.

    pip install libtpu; python benchmarks/train_memory.py --topology v5p:2x4x4 --preset infinitetalk-14b --batch 32

Networks and state have the published sizes; only shapes are used, nothing is allocated. `arguments` is the chip's part of
the state, the frozen parameters and the batch, `temporary` is additional memory while the step runs, `aliased` is the part
of the outputs that reuses donated arguments. The topology `cpu:8` compiles for 8 devices of this machine's CPU: it needs no
libtpu and serves only to try the script.
"""

import argparse
import importlib.metadata
import math
import os
import time
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from itjax import configs
from itjax.config import Networks
from itjax.configs.training import PRESETS
from itjax.models.dit import REMAT_POLICIES
from itjax.parallel.sharding import make_mesh, with_shardings
from itjax.records import SPEECH_MARGIN, Layout
from itjax.training import data, parameters, state, step
from itjax.training.config import OPTIMIZERS, Training
from itjax.training.config import Mesh as Ways
from itjax.training.objective import Batch
from itjax.training.state import TrainState

SIZES = {"480": (640, 640), "720": (960, 960)}
CHIP_GIB = {"v5e": 16, "v5p": 95, "v6e": 32}
LARGE = 2**21  # elements: smaller arrays, among them the vectors of all layers together, may be on every chip


class Inputs(NamedTuple):
    """Inputs of `train_step` other than its settings, as shapes with shardings."""

    state: TrainState
    good: Any
    frozen: dict
    batch: Batch
    null_text: Any


def main() -> None:
    args = parse_arguments()
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # read when libtpu is loaded
    jax.config.update("jax_platforms", "cpu")
    if not args.topology.startswith("cpu"):
        jax.default_backend = lambda: "tpu"  # which chooses the attention kernel
    networks = configs.PRESETS["infinitetalk-14b"].networks
    dit = replace(networks.dit, num_layers=args.layers or networks.dit.num_layers)
    networks = replace(networks, dit=dit)
    mesh = make_mesh(args.ulysses, args.context, heads=dit.num_heads, devices=devices_of(args.topology))
    settings = settings_of(args)
    data.check_batch(settings, mesh)
    height, width = SIZES[args.size]
    specs = parameters.abstract(dit, settings.trained)  # before the mesh is set: its devices cannot execute anything
    inputs = abstract_inputs(settings, networks, specs, mesh, height, width)
    print(
        f"{args.topology}, mesh {dict(mesh.shape)}, {args.preset}, {dit.num_layers} layers, batch {settings.batch} in "
        f"{settings.accumulation} part(s), {args.optimizer}, {height}x{width}x{Layout().frame_num}, remat {settings.remat}, "
        f"jax {jax.__version__}, libtpu {libtpu_version()}"
    )
    start = time.perf_counter()
    lowered = lower(settings, networks, inputs, mesh, mesh.devices.flat[0].platform)
    print(f"lowered in {time.perf_counter() - start:.0f} s", flush=True)
    if args.lower_only:
        return
    start = time.perf_counter()
    compiled = lowered.compile()
    print(f"compiled in {time.perf_counter() - start:.0f} s")
    print(summary(compiled.memory_analysis(), CHIP_GIB.get(args.topology.split(":")[0])))
    check_split(inputs, compiled, mesh)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--topology", default="v5p:2x4x4", help="chip and topology: v5p:2x4x4, v6e:8x8, v5e:4x4, cpu:8")
    parser.add_argument("--preset", choices=[name for name in PRESETS if name != "tiny"], default="infinitetalk-14b")
    parser.add_argument("--size", choices=SIZES, default="480", help="640x640 or 960x960 pixels, 81 frames")
    parser.add_argument("--batch", type=int, default=32, help="examples per step, over all chips")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--ulysses", type=int, default=1)
    parser.add_argument("--context", type=int, default=1)
    parser.add_argument("--remat", choices=REMAT_POLICIES, help="overrides the preset's policy")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--layers", type=int, help="fewer layers than the network's 40, for a quick test")
    parser.add_argument("--lower-only", action="store_true", help="do not compile")
    return parser.parse_args()


def settings_of(args: argparse.Namespace) -> Training:
    preset = PRESETS[args.preset][1]
    ways = Ways(args.ulysses, args.context)
    return replace(
        preset, batch=args.batch, accumulation=args.accumulation, mesh=ways, remat=args.remat or preset.remat,
        optimizer=replace(preset.optimizer, name=args.optimizer),
    )  # fmt: skip


def devices_of(topology: str) -> list:
    """Abstract devices of a topology such as "v5p:2x4x4"; or "cpu:8", this machine's CPU as 8 devices."""
    kind, _, bounds = topology.partition(":")
    if kind == "cpu":
        jax.config.update("jax_num_cpu_devices", int(bounds))
        return jax.devices("cpu")
    hosts = {"chip_config_name": "default", "chips_per_host_bounds": (2, 2, 1), "num_slices": 1}
    return list(topologies.get_topology_desc(topology, "tpu", **hosts).devices)


def abstract_inputs(
    settings: Training, networks: Networks, specs: tuple[dict, dict], mesh: Mesh, height: int, width: int
) -> Inputs:
    """Inputs of the step for a picture of `height` x `width` pixels, with the dtypes and shardings of a run.

    `specs`: trained and frozen parameters, from `parameters.abstract`.
    """
    trainable, frozen = specs
    replicated = NamedSharding(mesh, P())
    spec = lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=replicated)
    return Inputs(
        state.abstract_state(trainable, settings.optimizer, mesh),
        spec((), jnp.bool_),
        with_shardings(frozen, mesh, jnp.dtype(settings.dtype)),
        abstract_batch(settings, networks, mesh, height, width),
        spec((networks.dit.text_len, networks.dit.text_dim), jnp.float32),
    )


def abstract_batch(settings: Training, networks: Networks, mesh: Mesh, height: int, width: int) -> Batch:
    """A batch of examples with one person, as in the records."""
    dit, frames = networks.dit, Layout().frame_num
    latents = (frames - 1) // 4 + 1, height // 8, width // 8, dit.out_dim
    sharding = step.batch_sharding(mesh)

    def spec(*shape: int, dtype: Any = jnp.float16) -> Any:
        return jax.ShapeDtypeStruct((settings.batch, *shape), dtype, sharding=sharding)

    return Batch(
        latents=spec(*latents),
        reference=spec(*latents),
        clip=spec(networks.clip.tokens, dit.clip_dim),
        speech=spec(1, frames + 2 * SPEECH_MARGIN, dit.audio.layers, dit.audio.channels),
        text=spec(dit.text_len, dit.text_dim),
        context_latents=spec(dtype=jnp.int32),
        identity=spec(dtype=jnp.uint32),
        masks=None,
    )


def lower(settings: Training, networks: Networks, inputs: Inputs, mesh: Mesh, platform: str) -> jax.stages.Lowered:
    """Lowers the step as jitted in a run: the state is donated and keeps its sharding."""
    jitted: Any = step.compile_step(settings, networks.dit, inputs.state, mesh)
    with jax.set_mesh(mesh):
        return jitted.trace(*inputs).lower(lowering_platforms=(platform,))


def libtpu_version() -> str:
    try:
        return importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def summary(memory, chip: int | None) -> str:
    """Memory use of a chip in GiB, compared with its capacity."""
    gib = lambda name: getattr(memory, f"{name}_size_in_bytes") / 2**30
    arguments, temporary, output, aliased = map(gib, ("argument", "temp", "output", "alias"))
    needed = arguments + temporary + output - aliased
    fits = "" if chip is None else f" of {chip}: {'fits' if needed < chip else 'DOES NOT FIT'}"
    return (
        f"GiB a chip: arguments {arguments:.2f}, temporary {temporary:.2f}, output {output:.2f}, aliased {aliased:.2f}; "
        f"needed {needed:.2f}{fits}"
    )


def check_split(inputs: Inputs, compiled: jax.stages.Compiled, mesh: Mesh) -> None:
    """Raises AssertionError if a large leaf of state or frozen parameters is not split evenly over all devices, or if a step
    changes the sharding of the state, in which case the next step could not reuse its memory."""
    (given, _, frozen, _, _), _ = compiled.input_shardings
    returned, _ = compiled.output_shardings
    leaves, shardings = jax.tree.leaves((inputs.state, inputs.frozen)), jax.tree.leaves((given, frozen))
    for x, sharding in zip(leaves, shardings, strict=True):
        if x.size >= LARGE and math.prod(sharding.shard_shape(x.shape)) * mesh.size != x.size:
            raise AssertionError(f"{x.shape} {x.dtype} is not split over all devices: {sharding}")
    for x, before, after in zip(
        jax.tree.leaves(inputs.state), jax.tree.leaves(given), jax.tree.leaves(returned), strict=True
    ):
        if not before.is_equivalent_to(after, x.ndim):
            raise AssertionError(f"{x.shape} {x.dtype} of the state had sharding {before}, and has {after} after the step")


if __name__ == "__main__":
    main()
