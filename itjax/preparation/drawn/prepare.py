"""Encodes drawn clips into a dataset, as `itjax.preparation.prepare` does those of files."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from jax.sharding import Mesh

from itjax.media.containers import FRAME_RATE
from itjax.preparation import folder
from itjax.preparation.clips import ScannedVideo
from itjax.preparation.drawn.clips import DrawnClip, inputs_of
from itjax.preparation.folder import ClipSpan
from itjax.preparation.prepare import encoding_arguments, write_missing
from itjax.preparation.settings import Settings
from itjax.preparation.shards import LoadedClip
from itjax.progress import SILENT, Progress
from itjax.records import Dataset
from itjax.weights.sources import Weights


def prepare_drawn(
    out: Path, chosen: Sequence[DrawnClip], settings: Settings, weights: Weights, mesh: Mesh, progress: Progress = SILENT
) -> Dataset:
    """Makes the dataset `out` of the chosen clips, or continues an interrupted one; returns it.

    Raises:
        UserError: If espeak-ng is not installed, or `out` is something else or was started with different arguments.
        OutputError: If a file cannot be written.
    """
    settings = settings._replace(layout=replace(settings.layout, regions=True))
    clip = lambda drawn: ((0, round(drawn.source.seconds * FRAME_RATE)),)
    scanned = [ScannedVideo(x.name, *x.source.size, x.source.persons, x.prompt, clip(x), ()) for x in chosen]
    sources = dict.fromkeys(drawn.source for drawn in chosen)
    arguments = encoding_arguments(settings, weights) | {f"drawn {source.persons}": str(source) for source in sources}
    with folder.open_work_folder(out, arguments) as work:
        read = partial(read_drawn, chosen)
        return write_missing(read, scanned, out, work, settings, weights, mesh, progress)


def read_drawn(chosen: Sequence[DrawnClip], spans: Sequence[ClipSpan]) -> Iterator[LoadedClip]:
    """Yields the clips of the spans, in order.

    Raises:
        UserError: If espeak-ng is not installed.
    """
    wanted = [chosen[span.video] for span in spans]
    for drawn, found in zip(wanted, inputs_of(wanted), strict=True):
        yield LoadedClip(drawn.name, drawn.prompt, 0, *found)
