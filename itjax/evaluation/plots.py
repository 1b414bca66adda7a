"""Plots of a report: each metric's values over the videos, and the curves of drift over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from itjax.disk import atomic_path, output_errors
from itjax.errors import UserError
from itjax.evaluation.metrics import METRICS, Metric
from itjax.evaluation.video import VideoMetrics

CURVES = {
    "color": "distance of the mean colour from the first second's, levels of 255",
    "brightness": "brightness, levels of 255",
    "sharpness": "sharpness, variance of the Laplacian",
    "identity": "fraction of the factors seen again",
    "csim": "CSIM to the first face of the source",
    "step": "mean step between frames, levels of 255",
}
MOST_LINES = 30  # videos whose own curves are drawn besides their mean


def check_matplotlib() -> None:
    """Checks that plots can be drawn.

    Raises:
        UserError: If matplotlib is not installed.
    """
    _figure_class()


def _figure_class() -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('a report has plots, which need matplotlib: pip install "itjax[evaluation]"') from error

    def figure(**settings: Any) -> Any:
        made = Figure(**settings)
        FigureCanvasAgg(made)  # draws into files, without a display
        return made

    return figure


def write_plots(folder: Path, measured: Sequence[VideoMetrics], more: Sequence[Metric] = ()) -> list[str]:
    """Writes the plots for which there are values, of the usual metrics and `more`; returns the names of the files.

    Raises:
        OutputError: If a file cannot be written.
    """
    figure_class, written = _figure_class(), []
    for group in dict.fromkeys(metric.group for metric in (*METRICS, *more)):
        metrics = [metric for metric in (*METRICS, *more) if metric.group == group]
        values = {m.name: [each.numbers[m.name] for each in measured if m.name in each.numbers] for m in metrics}
        if present := {name: found for name, found in values.items() if found}:
            written.append(_save(folder, f"{group}.png", _spread(figure_class, present)))
    for name, label in CURVES.items():
        if curves := [each.curves[name] for each in measured if len(each.curves.get(name, ())) > 1]:
            written.append(_save(folder, f"{name}_over_time.png", _over_time(figure_class, curves, label)))
    return written


def _spread(figure_class: Any, values: dict[str, list[float]]) -> Any:
    """A column of points for each metric, a point for each video, and their mean."""
    figure = figure_class(figsize=(1.2 + 1.9 * len(values), 3.2), layout="constrained")
    for axes, (name, found) in zip(figure.subplots(1, len(values), squeeze=False)[0], values.items(), strict=True):
        axes.plot(np.random.default_rng(0).uniform(-0.2, 0.2, len(found)), found, ".", alpha=0.5)
        axes.plot([-0.3, 0.3], [np.mean(found)] * 2, color="black")
        axes.set(title=name, xlim=(-0.5, 0.5), xticks=[])
        axes.title.set_fontsize(9)
    return figure


def _over_time(figure_class: Any, curves: list[list[float]], label: str) -> Any:
    figure = figure_class(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for curve in curves[:MOST_LINES]:
        axes.plot(np.arange(len(curve)) + 0.5, curve, color="tab:blue", alpha=0.25, linewidth=0.8)
    padded = np.full((len(curves), max(map(len, curves))), np.nan)
    for row, curve in zip(padded, curves, strict=True):
        row[: len(curve)] = curve
    known = np.isfinite(padded)
    mean = np.nansum(padded, axis=0) / np.maximum(known.sum(0), 1)
    axes.plot(np.arange(len(mean)) + 0.5, np.where(known.any(0), mean, np.nan), color="black", label="mean")
    axes.set(xlabel="seconds", ylabel=label)
    axes.yaxis.label.set_fontsize(8)
    axes.legend()
    return figure


def _save(folder: Path, name: str, figure: Any) -> str:
    with atomic_path(folder / name) as temporary, output_errors(folder / name):
        figure.savefig(temporary, dpi=110)
    return name
