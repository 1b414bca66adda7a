"""Chunk after chunk: two drivers of the same functions. `scanned` is one program; `streamed` has constant memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from itjax.sampling import chunk
from itjax.sampling.chunk import Carry, ChunkInputs, Invariants, Output, Program

_begin = jax.jit(chunk.begin, static_argnums=0)
_denoise_step = jax.jit(chunk.denoise_step, static_argnums=0, donate_argnums=2)
_finish = jax.jit(chunk.finish, static_argnums=0)
_constrain_carry = jax.jit(chunk.constrain_carry)


def scanned(program: Program, invariants: Invariants, carry: Carry, chunks: ChunkInputs) -> tuple[Carry, Output]:
    """All chunks in one `lax.scan`.

    `chunks` are stacked on a leading axis, except for their reference: one serves all (or None: each is shown the last frame
    of the one before).
    """
    reference = chunks.reference

    def step(carry: Carry, inputs) -> tuple[Carry, Output]:
        windows, noise = inputs
        return chunk.chunk_step(program, invariants, carry, ChunkInputs(windows, reference, noise))

    return jax.lax.scan(step, carry, (chunks.windows, chunks.noise))


def streamed(
    program: Program,
    invariants: Invariants,
    carry: Carry,
    chunks: Iterable[ChunkInputs],
    on_step: Callable[[int], object] = lambda step: None,
) -> Iterator[tuple[Carry, Output]]:
    """One chunk at a time, for any number of them; each is handed out with the carry that the next one starts from.

    The steps are dispatched one by one (a host callback inside a compiled loop would keep it out of the persistent
    compilation cache), so `on_step` hears of each as it ends, and an interrupt is heeded between two.
    """
    steps = [jax.tree.map(lambda x, i=i: x[i], invariants.steps) for i in range(len(invariants.steps.t))]
    carry = _constrain_carry(carry)
    for inputs in chunks:
        state, conditions = _begin(program, invariants, carry, inputs)
        for number, step in enumerate(steps):
            state = _denoise_step(program, invariants, state, step, conditions)
            jax.block_until_ready(state.latent)
            on_step(number)
        carry, output = _finish(program, invariants, state.latent)
        yield carry, output


def compiled_programs() -> int:
    """How many programs the streamed driver has compiled in this process (a test holds it still over chunks)."""
    functions: tuple[Any, ...] = (_begin, _denoise_step, _finish)
    return sum(function._cache_size() for function in functions)
