"""The loss of held-out clips at fixed τ and noise: every call uses the same examples and draws."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32

from itjax.config import DiTSizes
from itjax.parallel.sharding import constrain
from itjax.records import Dataset
from itjax.training import data, objective, step
from itjax.training.config import Dropout, Training
from itjax.training.examples import ClipIndex, held_out_examples
from itjax.training.metrics import loss_by_band
from itjax.training.objective import Batch

TIMES = 4  # number of τ per held-out clip: the midpoints of the bands of `loss_by_band`


class HeldOutBatch(NamedTuple):
    """A batch of held-out examples on the mesh, their τ, and how many of them are real (the rest is padding)."""

    batch: Batch
    times: Float32[np.ndarray, " B"]
    real: int


def prepare(dataset: Dataset, settings: Training, held_out: tuple[ClipIndex, ...], mesh: Mesh) -> list[HeldOutBatch]:
    """The held-out examples, batched by bucket. Every process reads all of them, as they are few."""
    rows = mesh.shape["data"]
    examples = held_out_examples(dataset, settings, held_out, TIMES)
    times = objective.fixed_times(len(held_out), TIMES)
    sharding = step.batch_sharding(mesh)
    put = lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
    batches = []
    for bucket in sorted({number for number, _ in examples}):
        in_bucket = [i for i, (number, _) in enumerate(examples) if number == bucket]
        for first in range(0, len(in_bucket), rows):
            chosen = in_bucket[first : first + rows]
            padded = chosen + chosen[-1:] * (rows - len(chosen))
            batch, _ = data.stack([(examples[i][1], "") for i in padded])
            batches.append(HeldOutBatch(jax.tree.map(put, batch), times[padded], len(chosen)))
    return batches


@partial(jax.jit, static_argnums=(0, 1))
def _losses(settings: Training, sizes: DiTSizes, trainable, frozen, batch: Batch, times, null_text) -> Float[Array, " B"]:
    nothing_dropped = Dropout(0.0, 0.0, 0.0, 0.0, 0.0)
    draws = objective.draw_randoms(batch, settings.seed, settings.times, nothing_dropped)._replace(times=times)
    losses = step.losses_of(settings, sizes, trainable, frozen, batch, draws, null_text)
    return constrain(losses)  # replicated, because every process reports all of them


def loss(
    settings: Training, sizes: DiTSizes, trainable: dict, frozen: dict, batches: list[HeldOutBatch], null_text
) -> dict[str, float]:
    """The mean loss of the held-out examples ("validation/loss"), and by band of τ."""
    parts, times = [], []
    for batch_ in batches:
        losses = _losses(settings, sizes, trainable, frozen, batch_.batch, batch_.times, null_text)
        parts.append(np.asarray(losses)[: batch_.real])
        times.append(batch_.times[: batch_.real])
    losses, taus = np.concatenate(parts), np.concatenate(times)
    bands = {f"validation/{name}": value for name, value in loss_by_band(losses, taus).items()}
    return {"validation/loss": float(losses.mean())} | bands
