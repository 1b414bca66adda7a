"""Measures a chunk of small networks on this machine: compilation, seconds per chunk and per part, memory.

    python benchmarks/cpu_chunk.py [--case tiny|wide] [--frames 13|17|81] [--steps 4] [--repeats 20]

"tiny" is the preset of that name at 48x48 pixels; "wide" has a DiT of 6 layers, 384 wide, at 256x256 pixels: at 17 frames,
1,280 tokens.

Weights and inputs are random: no checkpoint is needed. If PyTorch is installed, forward passes of a PyTorch DiT with the
same weights (see torch_dit.py) alternate with ours in the same run, and the ratio is printed.
"""

import argparse
import importlib.util
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from itjax import configs
from itjax.config import Networks, Sampler
from itjax.pipeline import encoders
from itjax.sampling import chunk, denoise, rollout
from itjax.sampling.chunk import Carry, ChunkInputs, Invariants, Program, Reference
from itjax.sampling.color import color_statistics
from itjax.sampling.denoise import Conditions, DenoisingState
from itjax.sampling.guidance import scales_of
from itjax.weights import mapping
from itjax.weights.specs import network_specs
from itjax.weights.tables import dit as dit_table

TINY = configs.PRESETS["tiny"].networks
SIZE = configs.PRESETS["tiny"].sizes["infinitetalk-480"]  # its timestep shift
WIDE = replace(TINY, dit=replace(TINY.dit, dim=384, ffn_dim=1536, num_heads=6, num_layers=6))
CASES = {"tiny": (TINY, 48), "wide": (WIDE, 256)}  # networks, height and width in pixels
MOTION = {13: 5, 17: 5, 81: 9}  # frames per chunk: motion frames


def main() -> None:
    args = arguments()
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_default_matmul_precision", "highest")
    sampler = Sampler(frame_num=args.frames, motion_frames=MOTION[args.frames], steps=args.steps)
    print(f"{os.cpu_count()} cores, jax {jax.__version__}, device {jax.devices()[0].device_kind}")
    networks, side = CASES[args.case]
    print(f"{args.frames} frames of {side}x{side}, {args.steps} steps, {sampler.branches} branches, float32")
    program, invariants, carry, part = inputs(sampler, networks, side)
    before = peak_memory()
    first = once(lambda: whole_chunk(program, invariants, carry, part))
    later = turns(chunk_and_parts(program, invariants, carry, part), args.repeats)
    print(f"compilation, without a cache: {first - statistics.median(later['chunk']):.2f} s")
    print_table(later)
    print(f"peak memory {peak_memory():.0f} MiB, of that {before:.0f} before the first chunk")
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed: no comparison")
    else:
        compare(program, invariants, carry, part, args.repeats)


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--case", default="tiny", choices=CASES)
    p.add_argument("--frames", type=int, default=13, choices=sorted(MOTION), help="frames per chunk")
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--repeats", type=int, default=20, help="number of timed chunks; medians are printed")
    return p.parse_args()


def random_parameters(abstract: dict, key: jax.Array) -> dict:
    """Small random matrices; norm scales near one."""
    leaves, structure = jax.tree.flatten_with_path(abstract)
    random = [
        (path[-1].key in ("scale", "gamma")) + 0.08 * jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
        for i, (path, x) in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, random)


def inputs(sampler: Sampler, networks: Networks = TINY, side: int = 48):
    """(program, invariants, first carry, chunk) with random weights and inputs, for pictures of `side` pixels squared."""
    program = Program(networks, sampler, jnp.dtype("float32"))
    dit, vae = networks.dit, networks.vae
    specs = network_specs(networks)
    keys = iter(jax.random.split(jax.random.key(0), 8))
    normal = lambda *shape: jax.random.normal(next(keys), shape)
    weights = {name: random_parameters(specs[name].abstract, next(keys)) for name in ("dit", "vae")}
    picture = jnp.clip(normal(side, side, 3) / 2, -1, 1)
    latents = (sampler.num_latents, side // vae.spatial_stride, side // vae.spatial_stride, vae.z_dim)
    prompts = normal(2, dit.text_len, dit.text_dim)
    steps = encoders.euler_steps(program, weights["dit"], SIZE)
    numbers = scales_of(sampler), color_statistics(picture), jnp.asarray(sampler.color_strength)
    invariants = Invariants(weights["dit"], weights["vae"], prompts, steps, *numbers, None)
    audio = dit.audio
    windows = normal(1, sampler.frame_num, audio.window, audio.layers, audio.channels)
    reference = Reference(normal(*latents), normal(257, dit.clip_dim), chunk.reference_mask(sampler.num_latents))
    part = ChunkInputs(windows, reference, normal(*latents))
    return program, invariants, chunk.first_carry(picture, sampler), part


# -- measuring --------------------------------------------------------------------------------------------------------


def once(work: Callable) -> float:
    """Seconds until the arrays of `work` are ready."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def turns(functions: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    """Seconds of each function, `repeats` times, alternating, so that other load on the machine affects all of them."""
    for function in functions.values():
        once(function)
    rounds = [{name: once(function) for name, function in functions.items()} for _ in range(repeats)]
    return {name: [seconds[name] for seconds in rounds] for name in functions}


def print_table(seconds: dict[str, list[float]]) -> None:
    """Prints a table of the fastest and the median time of each function."""
    print(f"{'seconds':<44} {'fastest':>9} {'median':>9}")
    for name, samples in seconds.items():
        print(f"{name:<44} {min(samples):9.4f} {statistics.median(samples):9.4f}")


def peak_memory() -> float:
    """Largest resident size of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def whole_chunk(program, invariants, carry, part):
    return next(rollout.streamed(program, invariants, carry, [part]))


def chunk_and_parts(program, invariants, carry, part) -> dict[str, Callable]:
    """A whole chunk, and its parts separately."""
    begin, denoise_step, finish = (
        jax.jit(f, static_argnums=0) for f in (chunk.begin_chunk, chunk.denoise_step, chunk.finish_chunk)
    )
    state, conditions = begin(program, invariants, carry, part)
    step = jax.tree.map(lambda x: x[0], invariants.steps)
    return {
        "chunk": lambda: whole_chunk(program, invariants, carry, part),
        "  begin (VAE of the context, keys, values)": lambda: begin(program, invariants, carry, part),
        "  one step (of all branches)": lambda: denoise_step(program, invariants, state, step, conditions),
        "  finish (VAE decode, colours)": lambda: finish(program, invariants, state.latent),
    }


# -- against torch ----------------------------------------------------------------------------------------------------


def compare(program: Program, invariants: Invariants, carry: Carry, part: ChunkInputs, repeats: int) -> None:
    """Times only the DiT of a whole chunk, ours and torch's; exits if their outputs differ.

    Ours: keys and values once, then each step's branches as one batch. Torch's: one forward pass per step and branch, each
    with its keys and values. Both get the chunk's first latent in every step.
    """
    import torch
    from torch_dit import TorchDiT

    state, conditions = jax.jit(chunk.begin_chunk, static_argnums=0)(program, invariants, carry, part)
    net = TorchDiT(program.networks.dit, dict(mapping.to_torch(dit_table.TABLE, invariants.dit)))
    branch_inputs = [[torch.tensor(x) for x in branch] for branch in branches(invariants, part, state, conditions)]
    times = np.asarray(invariants.steps.t).tolist()
    ours = our_forwards(program, invariants, part, state, conditions)

    def torchs(threads: int) -> list:
        torch.set_num_threads(threads)
        return [torch.stack([net(time, *branch) for branch in branch_inputs]) for time in times]

    pairs = zip(ours(), torchs(1), strict=True)
    difference = max(np.abs(np.moveaxis(np.asarray(a), -1, 1) - b.numpy()).max() for a, b in pairs)
    print(f"\nthe DiT alone, {len(times)} steps x {len(branch_inputs)} branches, and torch {torch.__version__}")
    print(f"velocities at most {difference:.1e} apart")
    if not difference < 1e-4:
        raise SystemExit("the two networks do not agree: no comparison")
    functions = {"ours": ours}
    for threads in sorted({1, os.cpu_count() or 1}):
        functions[f"torch, {threads} threads"] = partial(torchs, threads)
    seconds = turns(functions, repeats)
    print_table(seconds)
    ours_s, *torch_s = seconds.values()
    for name, reduce in (("fastest", min), ("median", statistics.median)):
        print(f"ours/torch, {name}, torch at its better number of threads: {reduce(ours_s) / min(map(reduce, torch_s)):.2f}")


def our_forwards(
    program: Program, invariants: Invariants, part: ChunkInputs, state: DenoisingState, conditions: Conditions
) -> Callable:
    """The velocities of each step, [B, T, h, w, C]."""
    net = program.net
    prepare = jax.jit(lambda dit, *inputs: net.apply({"params": dit}, *inputs, method="keys_values"))
    predict = jax.jit(lambda dit, *args: denoise.velocities(net, dit, *args)[0])
    steps = [jax.tree.map(lambda x, i=i: x[i], invariants.steps) for i in range(len(invariants.steps.t))]
    windows = jnp.stack([part.windows, jnp.zeros_like(part.windows)])

    def forwards() -> list[jax.Array]:
        keys_values = prepare(invariants.dit, invariants.prompts, part.reference.clip[None], windows)
        step_conditions = conditions._replace(keys_values=keys_values)
        return [predict(invariants.dit, state, step, step_conditions) for step in steps]

    return forwards


def branches(
    invariants: Invariants, part: ChunkInputs, state: DenoisingState, conditions: Conditions
) -> Iterator[tuple[np.ndarray, ...]]:
    """Inputs of torch's forward pass other than the time, for each guidance branch."""
    windows = part.windows[0], jnp.zeros_like(part.windows[0])
    for text, audio in zip(*conditions.branches, strict=True):
        latents, condition = (np.moveaxis(np.asarray(x), -1, 0) for x in (state.latent, conditions.mask_and_reference))
        inputs = latents, condition, invariants.prompts[text], part.reference.clip[None], windows[int(audio)]
        yield tuple(np.array(x) for x in inputs)


if __name__ == "__main__":
    main()
