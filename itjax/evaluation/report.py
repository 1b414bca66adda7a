"""The report of measured videos: one Markdown table, and JSON with all values of each video."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from itjax.disk import output_errors, write_text
from itjax.evaluation.estimates import Estimate, Total, estimate
from itjax.evaluation.metrics import METRICS, Metric
from itjax.evaluation.numbers import LEFT_OUT
from itjax.evaluation.plots import write_plots
from itjax.evaluation.video import VideoMetrics


class Networks(NamedTuple):
    """Of the published networks: the rows of their metrics, and the numbers that only the set of all videos has.

    `left_out`: a sentence for each of these that could not be computed.
    """

    rows: tuple[Metric, ...] = ()
    totals: Mapping[str, Total] = MappingProxyType({})
    left_out: tuple[str, ...] = ()


NO_NETWORKS = Networks()


def estimates(measured: Sequence[VideoMetrics], networks: Networks = NO_NETWORKS) -> dict[str, Estimate]:
    """Estimates by metric, in the table's order; metrics that no video has are omitted."""
    by_name = {}
    for metric in (*METRICS, *networks.rows):
        values = [each.numbers[metric.name] for each in measured if metric.name in each.numbers]
        if values:
            by_name[metric.name] = estimate(values)
    return by_name


def table(measured: Sequence[VideoMetrics], networks: Networks = NO_NETWORKS) -> str:
    """A Markdown table of means over the videos with 95 % confidence intervals (Student's t).

    Means of one video and numbers of the whole set have no interval.
    """
    lines = ["| measure | mean | 95 % | videos | should be | |", "| --- | --- | --- | --- | --- | --- |"]
    rows = {metric.name: metric for metric in (*METRICS, *networks.rows)}
    for name, value in estimates(measured, networks).items():
        row = rows[name]
        interval = "" if value.low is None else f"{value.low:.3f} to {value.high:.3f}"
        lines.append(f"| {name} | {value.mean:.3f} | {interval} | {value.clips} | {row.desired} | {row.description} |")
    for name, total in networks.totals.items():
        row = rows[name]
        lines.append(
            f"| {name} | {total.value:.3f} | | {total.clips} | {row.desired} | {row.description}; "
            f"{total.made} vectors against {total.real} |"
        )
    return "\n".join(lines)


def left_out(measured: Sequence[VideoMetrics], networks: Networks = NO_NETWORKS) -> list[str]:
    """What was not measured, and why: a line for each video, or for all that lack the same for the same reason.

    Each video's own lines are in the report's JSON.
    """
    lines = [line for each in measured for line in ([each.error] if each.error else each.left_out)]
    by_reason: dict[str, list[str]] = {}
    for line in lines:
        by_reason.setdefault(line.partition(LEFT_OUT)[2] or line, []).append(line)
    together = lambda reason, alike: f"{len(alike)} videos, {alike[0].partition(LEFT_OUT)[0]} first{LEFT_OUT}{reason}"
    grouped = [alike[0] if len(alike) == 1 else together(reason, alike) for reason, alike in by_reason.items()]
    return [*grouped, *networks.left_out]


def _in_json(video: VideoMetrics) -> dict[str, Any]:
    """What is told of a video; JSON has no NaN: a second without a value, such as one without a face, is null."""
    told = {name: value for name, value in video._asdict().items() if name != "clip"}
    known = lambda curve: [value if np.isfinite(value) else None for value in curve]
    return {**told, "curves": {name: known(curve) for name, curve in video.curves.items()}}


def make_folder(folder: Path) -> None:
    """Makes a report's folder, if it is not there.

    Raises:
        OutputError: If it cannot be made.
    """
    with output_errors(folder):
        (folder / "plots").mkdir(parents=True, exist_ok=True)


def write_report(folder: Path, measured: Sequence[VideoMetrics], networks: Networks = NO_NETWORKS) -> None:
    """Writes report.md, report.json and plots/*.png into a folder, which is created if necessary.

    Raises:
        OutputError: If writing fails.
    """
    make_folder(folder)
    about = {metric.name: metric.description for metric in (*METRICS, *networks.rows)}
    described = lambda values: {name: {**value._asdict(), "description": about[name]} for name, value in values.items()}
    content = {
        "estimates": described(estimates(measured, networks)),
        "totals": described(networks.totals),
        "videos": [_in_json(each) for each in measured],
    }
    write_text(folder / "report.json", json.dumps(content, indent=1, allow_nan=False))
    plots = write_plots(folder / "plots", measured, networks.rows)
    text = [
        f"# Evaluation of {sum(not each.error for each in measured)} of {len(measured)} videos",
        "",
        table(measured, networks),
    ]
    if missing := left_out(measured, networks):
        text += ["", "## Left out", "", *[f"- {line}" for line in missing]]
    text += ["", "## Plots", "", *[f"![{name}](plots/{name})" for name in plots]] if plots else []
    write_text(folder / "report.md", "\n".join(text) + "\n")
