"""Chunk after chunk: two drivers of the same functions. `scanned` is one program; `streamed` has constant memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from itjax.sampling import chunk
from itjax.sampling.chunk import Carry, Chunk, Fixed, Output, Program

_begin = jax.jit(chunk.begin, static_argnums=0)
_advance = jax.jit(chunk.advance, static_argnums=0, donate_argnums=2)
_finish = jax.jit(chunk.finish, static_argnums=0)
_settled = jax.jit(chunk.settled)


def scanned(program: Program, fixed: Fixed, carry: Carry, chunks: Chunk) -> tuple[Carry, Output]:
    """All chunks in one `lax.scan`.

    `chunks` are stacked on a leading axis, except for their reference: one serves all (or None: each is shown the last frame
    of the one before).
    """
    reference = chunks.reference

    def step(carry: Carry, parts) -> tuple[Carry, Output]:
        windows, noise = parts
        return chunk.chunk_step(program, fixed, carry, Chunk(windows, reference, noise))

    return jax.lax.scan(step, carry, (chunks.windows, chunks.noise))


def streamed(
    program: Program,
    fixed: Fixed,
    carry: Carry,
    chunks: Iterable[Chunk],
    on_step: Callable[[int], object] = lambda step: None,
) -> Iterator[tuple[Carry, Output]]:
    """One chunk at a time, for any number of them; each is handed out with the carry that the next one starts from.

    The steps are dispatched one by one (a host callback inside a compiled loop would keep it out of the persistent
    compilation cache), so `on_step` hears of each as it ends, and an interrupt is heeded between two.
    """
    steps = [jax.tree.map(lambda x, i=i: x[i], fixed.steps) for i in range(len(fixed.steps.now))]
    carry = _settled(carry)
    for part in chunks:
        state, conditions = _begin(program, fixed, carry, part)
        for number, step in enumerate(steps):
            state = _advance(program, fixed, state, step, conditions)
            jax.block_until_ready(state.latent)
            on_step(number)
        carry, output = _finish(program, fixed, state.latent)
        yield carry, output


def compiled_programs() -> int:
    """How many programs the streamed driver has compiled in this process (a test holds it still over chunks)."""
    functions: tuple[Any, ...] = (_begin, _advance, _finish)
    return sum(function._cache_size() for function in functions)
