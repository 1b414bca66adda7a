"""What a training leaves: the weights in the project's format, a card with the figures, and a picture."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from itjax.config import VaeSizes
from itjax.disk import atomic_path, check_absent, output_errors
from itjax.weights import store
from itjax.weights.lazy import LazyTensor

WEIGHTS, CARD, PICTURE = "weights", "card.json", "picture.png"
COLUMNS, SCALE = 8, 2  # of the picture


def write_result(
    folder: Path, parameters: dict, sizes: VaeSizes, card: dict[str, Any], true: UInt8[np.ndarray, "N F H W 3"],
    made: UInt8[np.ndarray, "N F H W 3"],
) -> None:  # fmt: skip
    """Writes `folder`: weights/ (an Orbax checkpoint with the branch "vae"), card.json, and picture.png.

    The picture shows frames of the clips `true`, with those that were decoded (`made`) below them.

    Raises:
        UserError: If `folder` exists.
        OutputError: If a file cannot be written; no partial output remains.
    """
    check_absent(folder)
    with atomic_path(folder) as temporary, output_errors(folder):
        temporary.mkdir()
        metadata = {"vae": asdict(sizes)}
        store.save(temporary / WEIGHTS, {"vae": jax.tree.map(_lazy, parameters)}, metadata)
        (temporary / CARD).write_text(json.dumps(card | metadata, indent=1) + "\n")
        _picture(true, made).save(temporary / PICTURE)


def _lazy(array: jax.Array) -> LazyTensor:
    values = np.asarray(array)
    return LazyTensor(values.shape, values.dtype, values.__getitem__)


def _picture(true: UInt8[np.ndarray, "N F H W 3"], made: UInt8[np.ndarray, "N F H W 3"]) -> Image.Image:
    """Two rows for each frame shown: the true ones, and the decoded ones below."""
    count, frames = true.shape[:2]
    shown = [(column % count, (2 * column + 1) * frames // (2 * COLUMNS)) for column in range(COLUMNS)]
    rows = [np.concatenate([video[at] for at in shown], axis=1) for video in (true, made)]
    return Image.fromarray(np.concatenate(rows).repeat(SCALE, axis=0).repeat(SCALE, axis=1))
