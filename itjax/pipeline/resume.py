"""The state from which an interrupted run goes on, checked: the file may be damaged, edited, or of another version."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from itjax.config import Sampler
from itjax.errors import UserError
from itjax.media import journal
from itjax.media.writer import VideoWriter
from itjax.sampling.chunk import Carry, first_carry
from itjax.sampling.plan import ChunkPlan

LARGEST = 1.001  # of a frame's values, which are within -1..1 but for rounding


def check_state(writer: VideoWriter, sampler: Sampler, size: tuple[int, int], chunks: list[ChunkPlan]) -> None:
    """Checks that the run that `writer` continues can be that of these chunks.

    Raises:
        UserError: if its saved state cannot.
    """
    if writer.state is None:
        return
    if problem := _problem(writer, writer.state, sampler, size, chunks):
        file = writer.files.folder / journal.STATE_FILE
        raise UserError(
            f"{file} is damaged, or of another version of itjax: {problem}. The video made so far is untouched; to start "
            f"over, delete {writer.files.folder}."
        )


def _problem(
    writer: VideoWriter, state: dict[str, np.ndarray], sampler: Sampler, size: tuple[int, int], chunks: list[ChunkPlan]
) -> str:
    """What is wrong with the saved state; '' if nothing is."""
    last = chunks[writer.next_chunk - 1] if writer.next_chunk <= len(chunks) else None
    if last is None or writer.frames_done != last.start + last.kept.stop:
        return f"{writer.frames_done} frames in {writer.next_chunk} chunks are not those of this run"
    if state.keys() != set(Carry._fields):
        return f"it holds {', '.join(sorted(state)) or 'nothing'}, not {', '.join(sorted(Carry._fields))}"
    picture = jax.ShapeDtypeStruct((*size, 3), jnp.float32)
    for name, expected in jax.eval_shape(partial(first_carry, sampler=sampler), picture)._asdict().items():
        found = state[name]
        if found.shape != expected.shape or found.dtype != expected.dtype:
            return f"its {name} are {found.dtype} {list(found.shape)}, not {expected.dtype} {list(expected.shape)}"
    if not (np.abs(state["frames"]) <= LARGEST).all():  # or NaN
        return "its frames are not numbers within -1..1"
    if state["pinned_latents"] != sampler.context_latents:
        return f"its pinned_latents are {state['pinned_latents']}, not {sampler.context_latents}"
    return ""
