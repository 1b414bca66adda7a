"""The published networks at 480p and 720p, through the whole chunk step, from shapes alone."""

import jax
import jax.numpy as jnp
import pytest

from itjax import configs
from itjax.config import Sampler
from itjax.models.dit import TimeFeatures
from itjax.sampling.chunk import Carry, ChunkInputs, Invariants, Program, Reference, chunk_step
from itjax.sampling.color import ColorStatistics
from itjax.sampling.denoise import EulerSteps
from itjax.sampling.guidance import Scales
from itjax.weights.specs import network_specs

PRESET = configs.PRESETS["infinitetalk-14b"]


@pytest.mark.parametrize(("persons", "size"), [(1, (640, 640)), (2, (704, 1280))])
def test_chunk_step(persons, size):
    specs = network_specs(PRESET.networks)
    height, width = size
    sampler, dit = Sampler(), PRESET.networks.dit
    spec = lambda *shape, dtype=jnp.float32: jax.ShapeDtypeStruct(shape, dtype)
    half = lambda tree: jax.tree.map(lambda x: spec(*x.shape, dtype=jnp.bfloat16), tree)
    frames, latents = sampler.frame_num, (sampler.num_latents, height // 8, width // 8, 16)
    time = TimeFeatures(spec(40, dit.dim), spec(40, 6, dit.dim))
    invariants = Invariants(
        dit=half(specs["dit"].abstract),
        vae=half(specs["vae"].abstract),
        prompts=spec(2, dit.text_len, dit.text_dim),
        steps=EulerSteps(spec(40), spec(40), time, spec(40, dtype=jnp.bool_)),
        scales=Scales(spec(), spec(), spec(), spec()),
        color=ColorStatistics(spec(3), spec(3)),
        color_strength=spec(),
        masks=None if persons == 1 else spec(3, height * width // 256),
    )
    carry = Carry(spec(9, height, width, 3), spec(dtype=jnp.int32))
    reference = Reference(spec(*latents), spec(257, 1280), spec(sampler.num_latents, 4))
    chunk = ChunkInputs(spec(persons, frames, 5, 12, 768), reference, spec(*latents))
    program = Program(PRESET.networks, sampler, jnp.dtype("bfloat16"))
    after, output = jax.eval_shape(lambda *args: chunk_step(program, *args), invariants, carry, chunk)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), carry)
    assert output.pixels.shape == output.frames.shape == (81, height, width, 3) and output.pixels.dtype == jnp.uint8
    assert output.latents.shape == latents
