"""The curve of a run as a picture: loss, and the correlations on voices that were not trained on."""

import json
from pathlib import Path
from typing import Any

from itjax.disk import atomic_path, output_errors
from itjax.errors import UserError
from itjax.synthetic.mouth import Mouth
from itjax.training.metrics import FILE
from itjax.training.speech_encoder.readout import GATE

CURVE = "curve.png"
LOSSES = ("loss", "mouth", "phonemes")


def check_matplotlib() -> Any:
    """The class of matplotlib's figures.

    Raises:
        UserError: If it is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('the run\'s curve is drawn with matplotlib: pip install "itjax[evaluation]"') from error
    return Figure


def write(folder: Path) -> None:
    """Draws the run's metrics into its curve.png.

    Raises:
        OutputError: If the file cannot be written.
    """
    reports = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    figure = check_matplotlib()(figsize=(10, 4), layout="constrained")
    losses, correlations = figure.subplots(1, 2)
    panels = (
        (losses, "", LOSSES, "loss of training examples"),
        (correlations, "features/", (*Mouth._fields, "phonemes"), "held-out voices: r, share of phonemes"),
    )
    for axes, prefix, names, title in panels:
        for name in names:
            points = [(report["step"], report[prefix + name]) for report in reports if prefix + name in report]
            axes.plot(*zip(*points, strict=True), label=name) if points else None
        axes.set(title=title, xlabel="step")
    losses.set_yscale("log")
    correlations.axhline(GATE, color="grey", linestyle=":")
    for axes in (losses, correlations):
        axes.legend()
    path = folder / CURVE
    with atomic_path(path) as temporary, output_errors(path):
        figure.savefig(temporary, format="png", dpi=90)
