"""The report of measured videos: one Markdown table, and JSON with all values of each video."""

import json
from collections.abc import Sequence
from pathlib import Path

from itjax.disk import output_errors, write_text
from itjax.evaluation.estimates import Estimate, estimate
from itjax.evaluation.metrics import METRICS
from itjax.evaluation.plots import write_plots
from itjax.evaluation.video import VideoMetrics


def estimates(measured: Sequence[VideoMetrics]) -> dict[str, Estimate]:
    """Estimates by metric, in the table's order; metrics that no video has are omitted."""
    by_name = {}
    for metric in METRICS:
        values = [each.numbers[metric.name] for each in measured if metric.name in each.numbers]
        if values:
            by_name[metric.name] = estimate(values)
    return by_name


def table(measured: Sequence[VideoMetrics]) -> str:
    """A Markdown table of means over the videos with 95 % confidence intervals (bootstrap over the videos)."""
    lines = ["| measure | mean | 95 % | videos | should be | |", "| --- | --- | --- | --- | --- | --- |"]
    rows = {metric.name: metric for metric in METRICS}
    for name, value in estimates(measured).items():
        row, interval = rows[name], f"{value.low:.3f} to {value.high:.3f}"
        lines.append(f"| {name} | {value.mean:.3f} | {interval} | {value.clips} | {row.desired} | {row.description} |")
    return "\n".join(lines)


def left_out(measured: Sequence[VideoMetrics]) -> list[str]:
    """A sentence for each video, or part of it, that was not measured."""
    return [line for each in measured for line in ([each.error] if each.error else each.left_out)]


def write_report(folder: Path, measured: Sequence[VideoMetrics]) -> None:
    """Writes report.md, report.json and plots/*.png into a folder, which is created if necessary.

    Raises:
        OutputError: If writing fails.
    """
    with output_errors(folder):
        (folder / "plots").mkdir(parents=True, exist_ok=True)
    content = {
        "estimates": {name: value._asdict() for name, value in estimates(measured).items()},
        "videos": [each._asdict() for each in measured],
    }
    write_text(folder / "report.json", json.dumps(content, indent=1, allow_nan=False))
    plots = write_plots(folder / "plots", measured)
    text = [f"# Evaluation of {sum(not each.error for each in measured)} of {len(measured)} videos", "", table(measured)]
    if missing := left_out(measured):
        text += ["", "## Left out", "", *[f"- {line}" for line in missing]]
    text += ["", "## Plots", "", *[f"![{name}](plots/{name})" for name in plots]] if plots else []
    write_text(folder / "report.md", "\n".join(text) + "\n")
