"""What a training leaves: the weights in the project's format, a card with the figures, a picture and a curve."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from itjax.config import VaeSizes
from itjax.disk import atomic_path, output_errors
from itjax.errors import UserError
from itjax.training.metrics import FILE as METRICS
from itjax.version import __version__
from itjax.weights import store
from itjax.weights.lazy import LazyTensor

WEIGHTS, CARD, PICTURE, CURVE = "weights", "card.json", "picture.png", "curve.png"
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
    if folder.exists():
        raise UserError(f"{folder} already exists: remove it or choose another folder")
    with atomic_path(folder) as temporary, output_errors(folder):
        temporary.mkdir()
        metadata = {"vae": asdict(sizes)}
        store.save(temporary / WEIGHTS, {"vae": jax.tree.map(_lazy, parameters)}, metadata)
        (temporary / CARD).write_text(json.dumps(card | metadata | {"versions": versions()}, indent=1) + "\n")
        _picture(true, made).save(temporary / PICTURE)


def _lazy(array: jax.Array) -> LazyTensor:
    values = np.asarray(array)
    return LazyTensor(values.shape, values.dtype, values.__getitem__)


def versions() -> dict[str, str]:
    """Versions of what computed the result."""
    packages = {name: version(name) for name in ("jax", "flax", "optax", "numpy", "opencv-python")}
    return {"itjax": __version__, "python": platform.python_version()} | packages


def _picture(true: UInt8[np.ndarray, "N F H W 3"], made: UInt8[np.ndarray, "N F H W 3"]) -> Image.Image:
    """Two rows for each frame shown: the true ones, and the decoded ones below."""
    count, frames = true.shape[:2]
    shown = [(column % count, (2 * column + 1) * frames // (2 * COLUMNS)) for column in range(COLUMNS)]
    rows = [np.concatenate([video[at] for at in shown], axis=1) for video in (true, made)]
    return Image.fromarray(np.concatenate(rows).repeat(SCALE, axis=0).repeat(SCALE, axis=1))


def check_matplotlib() -> None:
    """Checks that the curve can be drawn.

    Raises:
        UserError: If matplotlib is not installed.
    """
    _figure(1)


def _figure(rows: int) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('the curve of a training needs matplotlib: pip install "itjax[evaluation]"') from error
    figure = Figure(figsize=(7, 2.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)  # draws into files, without a display
    return figure


def write_curve(run: Path, names: Sequence[str], output: Path) -> None:
    """Draws metrics of a run over processor time, one below the other: those that it has, if any.

    Raises:
        OutputError: If the file cannot be written.
    """
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    points = {name: [(x["core_seconds"] / 60, x[name]) for x in lines if x.get(name) is not None] for name in names}
    present = {name: values for name, values in points.items() if values}
    if not present:
        return
    figure = _figure(len(present))
    for axes, (name, values) in zip(figure.subplots(len(present), 1, squeeze=False)[:, 0], present.items(), strict=True):
        axes.plot(*np.transpose(values), linewidth=1, marker="." if len(values) < 50 else None)
        axes.set_ylabel(name)
    axes.set_xlabel("core-minutes")
    with atomic_path(output) as temporary, output_errors(output):
        figure.savefig(temporary, format="png", dpi=100)
