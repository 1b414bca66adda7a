"""Adds the metrics of published networks to measured videos: in one process, so that each network is in memory once."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from itjax.errors import UserError
from itjax.evaluation.estimates import Total
from itjax.evaluation.numbers import Numbers
from itjax.evaluation.report import Networks
from itjax.evaluation.video import VideoMetrics

if TYPE_CHECKING:
    from itjax.evaluation.learned import NetworkMetric


def with_networks(measured: VideoMetrics, metrics: Sequence["NetworkMetric"]) -> VideoMetrics:
    """Adds a video's own numbers and curves, and the video to the metrics' sets; why it has none is left out, as sentences.

    The video is read again, once for each metric and in pieces: what the networks take dwarfs that.
    """
    if measured.clip is None:
        return measured
    numbers = Numbers(measured.clip.path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said when it was measured
        for metric in metrics:
            try:
                found = metric.add(measured.clip)
            except (UserError, ValueError) as error:
                numbers.leave_out(f"{metric.rows[0].name}: {error}")
                continue
            numbers.values |= found.numbers
            for name, curve in found.curves.items():
                numbers.curve(name, curve)
    return measured._replace(
        numbers=measured.numbers | numbers.finite(),
        curves=measured.curves | numbers.curves,
        left_out=[*measured.left_out, *numbers.left_out],
        clip=None,
    )


def of_all(metrics: Sequence["NetworkMetric"]) -> Networks:
    """The rows of the metrics, and the numbers of the set of all videos that were added."""
    totals: dict[str, Total] = {}
    left_out = []
    for metric in metrics:
        try:
            totals |= metric.total()
        except (UserError, ValueError) as error:
            left_out.append(f"left out: {metric.rows[0].name}: {error}")
    return Networks(tuple(row for metric in metrics for row in metric.rows), totals, tuple(left_out))
