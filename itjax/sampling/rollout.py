"""Generates chunk after chunk, in two ways: `scanned` is a single program, `streamed` needs constant memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from itjax.compilation import JitForFewCalls
from itjax.config import Apg, Sampler
from itjax.sampling import chunk
from itjax.sampling.chunk import Carry, ChunkInputs, ChunkOutput, Invariants, Program
from itjax.sampling.denoise import Conditions, DenoisingState

# the small model's: 10.0 s of compilation and 0.07 s a chunk become 3.7 s and 0.13 s
_begin = JitForFewCalls(chunk.begin_chunk, static_argnums=0)
_denoise_step = jax.jit(chunk.denoise_step, static_argnums=0, donate_argnums=2)
_finish = jax.jit(chunk.finish_chunk, static_argnums=0)
_constrain_carry = jax.jit(chunk.constrain_carry)


def scanned(program: Program, invariants: Invariants, carry: Carry, chunks: ChunkInputs) -> tuple[Carry, ChunkOutput]:
    """Generates all chunks in one `lax.scan`.

    `chunks` is stacked on a leading axis, except for the reference, which is shared by all chunks (None: each chunk's
    reference is the last frame of the previous one).
    """
    reference = chunks.reference

    def step(carry: Carry, inputs) -> tuple[Carry, ChunkOutput]:
        windows, noise = inputs
        return chunk.chunk_step(program, invariants, carry, ChunkInputs(windows, reference, noise))

    return jax.lax.scan(step, carry, (chunks.windows, chunks.noise))


def streamed(
    program: Program,
    invariants: Invariants,
    carry: Carry,
    chunks: Iterable[ChunkInputs],
    on_step: Callable[[int], object] = lambda step: None,
) -> Iterator[tuple[Carry, ChunkOutput]]:
    """Generates any number of chunks, one at a time; yields each with the carry into the next one.

    The steps are dispatched one by one (a host callback inside a compiled loop would keep the loop out of the persistent
    compilation cache): `on_step` is called after each step, and an interrupt takes effect between two steps. Before a chunk
    is yielded, the next one's inputs are read and its first step is dispatched, so that the devices are not idle while the
    caller encodes and writes frames. An error in this comes after the chunk.
    """
    begin, denoise, finish = _parts(program)
    steps = [jax.tree.map(lambda x, i=i: x[i], invariants.steps) for i in range(len(invariants.steps.t))]
    invariants = invariants._replace(steps=steps[0])  # whose shape does not depend on the number of steps
    remaining = iter(chunks)

    def first_step(carry: Carry) -> tuple[DenoisingState, Conditions] | None:
        """Dispatches the first step of the next chunk. None: there is none."""
        inputs = next(remaining, None)
        if inputs is None:
            return None
        state, conditions = _begin(begin, invariants, carry, inputs)
        return _denoise_step(denoise, invariants, state, steps[0], conditions), conditions

    begun = first_step(_constrain_carry(carry))
    while begun is not None:
        state, conditions = begun
        finite = []  # asked now, to be known before the next chunk's first step, and looked at once a chunk
        for number, step in enumerate(steps):
            if number:
                state = _denoise_step(denoise, invariants, state, step, conditions)
            jax.block_until_ready(state.latent)
            finite.append(all_finite(state.latent))
            on_step(number)
        carry, output = _finish(finish, invariants, state.latent)
        output = output._replace(finite=(*finite, all_finite(output.frames)))
        # else this chunk's keys and values stay in the devices' memory beside the next one's
        del begun, state, conditions
        try:
            begun = first_step(carry)
        except BaseException:
            yield carry, output
            raise
        yield carry, output


def _parts(program: Program) -> tuple[Program, Program, Program]:
    """What `begin_chunk`, `denoise_step` and `finish_chunk` use of the settings; other ones do not compile them again.

    None of them uses the number of steps or the timestep shift; scales and strengths are inputs (`Invariants`).
    """
    sampler = program.sampler
    guidance = {
        "text_scale": 1.0 if sampler.branches == 2 else Sampler().text_scale,
        "apg": None if sampler.apg is None else Apg(),
    }
    cache = None if sampler.teacache_threshold is None else 0.0
    begin = program.reduced_to("frame_num", "motion_frames", "strategy", teacache_threshold=cache, **guidance)
    finish = program.reduced_to("frame_num", "motion_frames", color_strength=float(sampler.color_strength > 0))
    return begin, program.reduced_to(**guidance), finish


@jax.jit
def all_finite(values: Float[Array, "..."]) -> Bool[Array, ""]:
    """Whether all numbers are finite. A program of its own: in `finish_chunk`, it would change how XLA fuses that."""
    return jnp.isfinite(values).all()


def compiled_programs() -> int:
    """Number of programs that `streamed` has compiled in this process (tests check that it stays constant)."""
    functions: tuple[Any, ...] = (_begin, _denoise_step, _finish)
    return sum(function._cache_size() for function in functions)
