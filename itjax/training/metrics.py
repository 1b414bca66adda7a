"""Metrics of a run as JSON lines and TensorBoard events, and videos for TensorBoard."""

import contextlib
import io
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import SupportsFloat

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from itjax.disk import output_errors, write_text
from itjax.errors import OutputError, UserError
from itjax.media.containers import FRAME_RATE
from itjax.training.event_files import Event, EventsWriter, SessionLog, Summary

# B examples · F pixel frames · H W pixels

FILE = "metrics.jsonl"
EVENTS = "tensorboard"
GIF_SIDE = 640  # pixels: longer side of TensorBoard videos, which are GIFs; the mp4 has the full size


class MetricLog:
    """Writes metrics by step to `folder`/metrics.jsonl and `folder`/tensorboard. Used by one process of a run.

    A run that resumes after `resumed_step` (0: a new run) removes what was reported for later steps: it will be reported
    again.

    Raises:
        UserError: If the file of an earlier run cannot be read.
        OutputError: If a file cannot be written; this also applies to every method.
    """

    def __init__(self, folder: Path, resumed_step: int):
        self.path = folder / FILE
        with output_errors(self.path):
            (folder / EVENTS).mkdir(parents=True, exist_ok=True)
        _truncate(self.path, resumed_step)
        with contextlib.ExitStack() as stack:
            with output_errors(self.path):
                self._lines = stack.enter_context(self.path.open("a"))
            with output_errors(folder / EVENTS):
                # TensorBoard reads files in the order of their names, whose time is in whole seconds: the suffix breaks ties
                self._events = EventsWriter(str(folder / EVENTS / "events"), f".{resumed_step:09d}")
                next_step = resumed_step + 1 if resumed_step else 0
                self._events.write_event(Event(step=next_step, session_log=SessionLog(status=SessionLog.START)))
                self._events.flush()
            stack.pop_all()

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Writes the metrics of a step, flushed when this returns. Values are host numbers, not device arrays.

        NaN and infinity become null in the JSON.

        Raises:
            ValueError: If a metric is named "step".
        """
        if "step" in values:
            raise ValueError("a metric cannot be named 'step'")
        numbers = {name: float(value) for name, value in values.items()}
        finite = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
        with output_errors(self.path):
            self._lines.write(json.dumps({"step": step} | finite, allow_nan=False) + "\n")
            self._lines.flush()
        self._event(step, [Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()])

    def video(self, step: int, name: str, frames: UInt8[np.ndarray, "F H W 3"], fps: int = FRAME_RATE) -> None:
        """Writes a video to TensorBoard's images as a GIF, scaled down to at most 640 pixels."""
        height, width = frames.shape[1:3]
        scale = min(1.0, GIF_SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        resized = (Image.fromarray(frame).resize(size, Image.Resampling.BOX) for frame in frames)
        # the default method is 50 times slower
        pictures = [picture.quantize(method=Image.Quantize.FASTOCTREE) for picture in resized]
        data = io.BytesIO()
        pictures[0].save(data, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0)
        image = Summary.Image(height=size[1], width=size[0], colorspace=3, encoded_image_string=data.getvalue())
        self._event(step, [Summary.Value(tag=name, image=image)])

    def _event(self, step: int, values: list[Summary.Value]) -> None:
        with output_errors(self.path.parent / EVENTS):
            self._events.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
            self._events.flush()

    def close(self) -> None:
        """Closes both files; can be called repeatedly."""
        if self._lines.closed:
            return
        with output_errors(self.path):
            self._lines.close()
        with output_errors(self.path.parent / EVENTS):
            self._events.close()

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.close()
        except OutputError:
            if error[0] is None:  # otherwise, report the error that ended the block
                raise


def _truncate(path: Path, resumed_step: int) -> None:
    """Removes the lines of steps after `resumed_step` (all for 0), and an incomplete last line left by a kill."""
    if not path.exists():
        return
    kept = [line for step, line in _lines(path) if 0 < resumed_step >= step]
    write_text(path, "".join(f"{line}\n" for line in kept))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (step, line) for each complete line."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Move it away to continue without it.") from error
    for number, line in enumerate(lines, start=1):
        try:
            yield int(json.loads(line)["step"]), line
        except (ValueError, TypeError, KeyError, RecursionError):
            if number < len(lines):
                raise UserError(
                    f"{path}, line {number}: not the report of a step: {line[:80]!r}. Repair it, or move the file away to "
                    "continue without it."
                ) from None


def loss_by_band(
    losses: Float[np.ndarray, " B"], times: Float[np.ndarray, " B"], bands: int = 4
) -> dict[str, float]:  # fmt: skip
    """Mean loss of the examples whose time τ is in each of `bands` equal intervals of 0..1.

    Intervals without examples are omitted.

    Raises:
        ValueError: If a τ is outside 0..1.
    """
    if not np.all((times >= 0) & (times <= 1)):
        raise ValueError(f"τ is outside 0..1: {times}")
    band = np.minimum((times * bands).astype(int), bands - 1)
    return {
        f"loss/tau_{i / bands:.2f}-{(i + 1) / bands:.2f}": float(losses[band == i].mean()) for i in range(bands) if i in band
    }
