"""The curve of a run as a picture: panels of metrics over the steps."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from itjax.disk import atomic_path, output_errors
from itjax.errors import UserError
from itjax.training.metrics import FILE as METRICS

FILE = "curve.png"
COLUMNS, WIDTH, HEIGHT = 2, 5.0, 3.0  # panels beside each other; inches of a panel


class Panel(NamedTuple):
    """Metrics that are drawn into one diagram.

    Attributes:
        title: Above the diagram.
        metrics: Their names in the run's metrics.jsonl.
        log: Whether the axis is logarithmic.
        level: A value to reach, drawn as a dotted line.
    """

    title: str
    metrics: Sequence[str]
    log: bool = False
    level: float | None = None


def check_matplotlib() -> None:
    """Checks that a curve can be drawn, before hours are spent.

    Raises:
        UserError: If matplotlib is not installed.
    """
    _figure()


def _figure() -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('the curve of a training needs matplotlib: pip install "itjax[evaluation]"') from error
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)  # draws into files, without a display
    return figure


def write(run: Path, panels: Sequence[Panel]) -> None:
    """Draws metrics of the run into its curve.png, without panels and lines that have no values yet.

    Raises:
        UserError: If matplotlib is not installed.
        OutputError: If the file cannot be written.
    """
    reports = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    points = lambda name: [(each["step"], each[name]) for each in reports if each.get(name) is not None]
    lines = [(panel, {name: points(name) for name in panel.metrics if points(name)}) for panel in panels]
    drawn = [(panel, present) for panel, present in lines if present]
    if not drawn:
        return
    figure, columns = _figure(), min(COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    figure.set_size_inches(WIDTH * columns, HEIGHT * rows)
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in places[len(drawn) :]:
        unused.remove()
    for axes, (panel, present) in zip(places, drawn, strict=False):
        for name, values in present.items():
            label = name.rpartition("/")[2]
            axes.plot(*zip(*values, strict=True), label=label, linewidth=1, marker="." if len(values) < 50 else None)
        axes.set(title=panel.title, xlabel="step", yscale="log" if panel.log else "linear")
        axes.legend()
        if panel.level is not None:
            axes.axhline(panel.level, color="grey", linestyle=":")
    path = run / FILE
    with atomic_path(path) as temporary, output_errors(path):
        figure.savefig(temporary, format="png", dpi=90)
