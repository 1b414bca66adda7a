"""Compiles the training step for TPU chips that need not be there, and prints what it takes of a chip's memory.

    pip install libtpu; python benchmarks/train_memory.py --topology v5p:2x4x4 --preset infinitetalk-14b --batch 32

Networks and state are the published sizes, from shapes alone: nothing is allocated. `arguments` are the chip's part of
the state, the frozen parameters and the batch, `temporary` what the step needs besides while it runs, `aliased` what of
the outputs takes the place of donated arguments. A topology `cpu:8` compiles for that many devices of this machine's CPU,
which needs no libtpu and says nothing of a TPU: it is there to try the script.
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
from itjax.models.dit import REMAT
from itjax.parallel.sharding import make_mesh, with_shardings
from itjax.records import SPEECH_MARGIN, Layout
from itjax.training import data, parameters, state, step
from itjax.training.config import Mesh as Ways
from itjax.training.config import Training
from itjax.training.objective import Batch
from itjax.training.state import TrainState

SIZES = {"480": (640, 640), "720": (960, 960)}
CHIP_GIB = {"v5e": 16, "v5p": 95, "v6e": 32}
LARGE = 2**14  # elements: what is smaller may lie whole on every chip


class Inputs(NamedTuple):
    """What `train_step` takes besides its settings, as shapes with shardings."""

    state: TrainState
    good: Any
    frozen: dict
    batch: Batch
    null_text: Any


def main() -> None:
    args = parsed()
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # read when libtpu is loaded
    jax.config.update("jax_platforms", "cpu")
    networks = configs.PRESETS["infinitetalk-14b"].networks
    dit = replace(networks.dit, num_layers=args.layers or networks.dit.num_layers)
    networks = replace(networks, dit=dit)
    mesh = make_mesh(args.ulysses, args.context, heads=dit.num_heads, devices=devices_of(args.topology))
    settings = settings_of(args)
    data.check_batch(settings, mesh)
    height, width = SIZES[args.size]
    specs = parameters.abstract(dit, settings.trained)  # before the mesh: its devices can run nothing
    inputs = abstract_inputs(settings, networks, specs, mesh, height, width)
    print(
        f"{args.topology}, mesh {dict(mesh.shape)}, {args.preset}, {dit.num_layers} layers, batch {settings.batch} in "
        f"{settings.accumulation} part(s), {height}x{width}x{Layout().frame_num}, remat {settings.remat}, jax "
        f"{jax.__version__}, libtpu {libtpu_version()}"
    )
    begun = time.perf_counter()
    lowered = lower(settings, networks, inputs, mesh, mesh.devices.flat[0].platform)
    print(f"lowered in {time.perf_counter() - begun:.0f} s", flush=True)
    if args.lower_only:
        return
    begun = time.perf_counter()
    compiled = lowered.compile()
    print(f"compiled in {time.perf_counter() - begun:.0f} s")
    print(told(compiled.memory_analysis(), CHIP_GIB.get(args.topology.split(":")[0])))
    check_split(inputs, compiled, mesh)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--topology", default="v5p:2x4x4", help="chip and how many: v5p:2x4x4, v6e:8x8, v5e:4x4, cpu:8")
    parser.add_argument("--preset", choices=[name for name in PRESETS if name != "tiny"], default="infinitetalk-14b")
    parser.add_argument("--size", choices=SIZES, default="480", help="picture: 640x640 or 960x960, of 81 frames")
    parser.add_argument("--batch", type=int, default=32, help="examples of a step, over all chips")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--ulysses", type=int, default=1)
    parser.add_argument("--context", type=int, default=1)
    parser.add_argument("--remat", choices=REMAT, help="another than the preset's")
    parser.add_argument("--layers", type=int, help="fewer than the network's 40, to try it")
    parser.add_argument("--lower-only", action="store_true", help="do not compile")
    return parser.parse_args()


def settings_of(args: argparse.Namespace) -> Training:
    preset = PRESETS[args.preset][1]
    ways = Ways(args.ulysses, args.context)
    return replace(preset, batch=args.batch, accumulation=args.accumulation, mesh=ways, remat=args.remat or preset.remat)


def devices_of(topology: str) -> list:
    """Devices of a topology "v5p:2x4x4", described without being there; or "cpu:8", this machine's CPU as so many."""
    kind, _, bounds = topology.partition(":")
    if kind == "cpu":
        jax.config.update("jax_num_cpu_devices", int(bounds))
        return jax.devices("cpu")
    hosts = {"chip_config_name": "default", "chips_per_host_bounds": (2, 2, 1), "num_slices": 1}
    return list(topologies.get_topology_desc(topology, "tpu", **hosts).devices)


def abstract_inputs(
    settings: Training, networks: Networks, specs: tuple[dict, dict], mesh: Mesh, height: int, width: int
) -> Inputs:
    """Inputs of the step for a picture of `height` x `width` pixels, in the types and shardings that a run gives them.

    Args:
        described: `parameters.abstract`: what trains, and what is frozen.
    """
    trainable, frozen = specs
    everywhere = NamedSharding(mesh, P())
    spec = lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere)
    return Inputs(
        state.abstract_state(trainable, settings.optimizer, mesh),
        spec((), jnp.bool_),
        with_shardings(frozen, mesh, jnp.dtype(settings.dtype)),
        abstract_batch(settings, networks, mesh, height, width),
        spec((networks.dit.text_len, networks.dit.text_dim), jnp.float32),
    )


def abstract_batch(settings: Training, networks: Networks, mesh: Mesh, height: int, width: int) -> Batch:
    """A batch of one person's examples, as records hold them."""
    dit, frames = networks.dit, Layout().frame_num
    latents = (frames - 1) // 4 + 1, height // 8, width // 8, dit.out_dim
    along = step.batch_sharding(mesh)

    def half(*shape: int, dtype: Any = jnp.float16) -> Any:
        return jax.ShapeDtypeStruct((settings.batch, *shape), dtype, sharding=along)

    return Batch(
        latents=half(*latents),
        reference=half(*latents),
        clip=half(networks.clip.tokens, dit.clip_dim),
        speech=half(1, frames + 2 * SPEECH_MARGIN, dit.audio.layers, dit.audio.channels),
        text=half(dit.text_len, dit.text_dim),
        context_latents=half(dtype=jnp.int32),
        identity=half(dtype=jnp.uint32),
        masks=None,
    )


def lower(settings: Training, networks: Networks, inputs: Inputs, mesh: Mesh, platform: str) -> jax.stages.Lowered:
    """The step as a run jits it: the state is donated, and lies afterwards where it lay."""
    jitted: Any = step.jitted(settings, networks.dit, inputs.state, mesh)
    with jax.set_mesh(mesh):
        return jitted.trace(*inputs).lower(lowering_platforms=(platform,))


def libtpu_version() -> str:
    try:
        return importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def told(memory, chip: int | None) -> str:
    """What of a chip's memory is taken, in GiB, against what it has."""
    gib = lambda name: getattr(memory, f"{name}_size_in_bytes") / 2**30
    arguments, temporary, output, aliased = map(gib, ("argument", "temp", "output", "alias"))
    needed = arguments + temporary + output - aliased
    fits = "" if chip is None else f" of {chip}: {'fits' if needed < chip else 'DOES NOT FIT'}"
    return (
        f"GiB a chip: arguments {arguments:.2f}, temporary {temporary:.2f}, output {output:.2f}, aliased {aliased:.2f}; "
        f"needed {needed:.2f}{fits}"
    )


def check_split(inputs: Inputs, compiled: jax.stages.Compiled, mesh: Mesh) -> None:
    """Raises where a large leaf of state or frozen parameters does not lie in equal parts on all devices, or where a step
    leaves a part of the state elsewhere than it found it: the next one could not take its memory."""
    (given, _, frozen, _, _), _ = compiled.input_shardings
    after, _ = compiled.output_shardings
    leaves, lie = jax.tree.leaves((inputs.state, inputs.frozen)), jax.tree.leaves((given, frozen))
    for x, at in zip(leaves, lie, strict=True):
        if x.size >= LARGE and math.prod(at.shard_shape(x.shape)) * mesh.size != x.size:
            raise AssertionError(f"{x.shape} {x.dtype} is not split over all devices: {at}")
    for x, before, then in zip(jax.tree.leaves(inputs.state), jax.tree.leaves(given), jax.tree.leaves(after), strict=True):
        if not before.is_equivalent_to(then, x.ndim):
            raise AssertionError(f"{x.shape} {x.dtype} of the state lay as {before}, and after the step as {then}")


if __name__ == "__main__":
    main()
