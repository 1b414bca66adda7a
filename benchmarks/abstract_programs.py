"""The programs of a run, with shapes and shardings instead of arrays: for compiling them without weights or devices."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from itjax.config import Sampler
from itjax.models.dit import TimeFeatures
from itjax.parallel.sharding import heads_spec, network_shardings
from itjax.sampling import chunk
from itjax.sampling.chunk import Carry, ChunkInputs, Invariants, Program, Reference
from itjax.sampling.color import ColorStatistics
from itjax.sampling.denoise import EulerSteps
from itjax.sampling.guidance import Scales

SIZES = {"480": (640, 640), "720": (960, 960)}  # height and width of a square picture


def programs(networks, specs, mesh, height: int, width: int, persons: int, in_turn: bool = False):
    """Yields (name, function, abstract inputs) for each program that a run compiles."""
    spec = lambda *shape, dtype=jnp.float32: jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P()))
    replicated = lambda tree: jax.tree.map(lambda x: spec(*x.shape, dtype=x.dtype), tree)
    sampler, dit = Sampler(), networks.dit
    program = Program(networks, sampler, jnp.dtype("bfloat16"), in_turn=in_turn)
    dtypes = {"dit": program.dtype, "vae": program.vae_dtype, "clip": program.dtype}
    weights = {n: network_shardings(n, specs[n].abstract, mesh, dtype) for n, dtype in dtypes.items()}
    latents = sampler.num_latents, height // 8, width // 8, 16
    step = EulerSteps(spec(), spec(), TimeFeatures(spec(dit.dim), spec(6, dit.dim)), spec(dtype=jnp.bool_))
    masks = None if persons == 1 else spec(3, height * width // 256)
    color = ColorStatistics(spec(3), spec(3))
    prompts, scales = spec(2, dit.text_len, dit.text_dim), Scales(spec(), spec(), spec(), spec())
    invariants = Invariants(weights["dit"], weights["vae"], prompts, step, scales, color, spec(), masks)
    carry = Carry(spec(sampler.motion_frames, height, width, 3), spec(dtype=jnp.int32))
    audio, reference = dit.audio, Reference(spec(*latents), spec(257, dit.clip_dim), spec(sampler.num_latents, 4))
    windows = spec(persons, sampler.frame_num, audio.window, audio.layers, audio.channels)
    part = ChunkInputs(windows, reference, spec(*latents))
    begin = lambda *inputs: chunk.begin_chunk(program, *inputs)
    state, conditions = jax.eval_shape(begin, invariants, carry, part)
    heads = lambda x: NamedSharding(mesh, heads_spec(x.shape, mesh))
    sharded = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=heads(x)), conditions.keys_values)
    conditions = replicated(conditions)._replace(keys_values=sharded)
    encoders = {"vae": weights["vae"], "clip": weights["clip"]}
    pictures = spec(height, width, 3), spec(224, 224, 3)
    encode = lambda *inputs: chunk.encode_reference(program, *inputs)
    yield "reference", encode, (encoders, *pictures)
    yield "begin", begin, (invariants, carry, part)
    yield "one step", lambda *inputs: chunk.denoise_step(program, *inputs), (invariants, replicated(state), step, conditions)
    yield "finish", lambda *inputs: chunk.finish_chunk(program, *inputs), (invariants, spec(*latents))
