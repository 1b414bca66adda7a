"""A picture of a talking video: frames over the sound's envelope, and below it how far the mouth is open."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from itjax.disk import atomic_path, output_errors
from itjax.evaluation import finders, truths
from itjax.evaluation.videos import FrameReader
from itjax.media.containers import FRAME_RATE, SAMPLE_RATE
from itjax.media.speech import load_track
from itjax.synthetic.face.lips import MAX_GAP

# F frames · H W pixels · n samples

WIDTH, MARGIN = 960, 8  # of the picture, in pixels
SHOWN = 8  # frames of the strip
SOUND, MOUTH, LINE = 60, 90, 18  # heights: envelope, curves of the mouth, a line of text
FINER = 2  # everything is drawn larger and reduced, for smooth lines
WHITE, TEXT, GREY, TRUE, SEEN = "white", "#333333", "#9aa5b1", "#e08a1e", "#1f5fbf"


def draw(video: Path, truth: Path, out: Path) -> None:
    """Draws a video of one drawn person whose truth is known, and writes the picture (PNG).

    Raises:
        UserError: If a file cannot be read.
        OutputError: If the picture cannot be written.
    """
    known = truths.read_truth(truth)
    reader = FrameReader(video)
    frames = reader.read(known.num_frames)
    (track,) = finders.by_color(known.people[:1])(frames)
    # what is seen is in halves of the head's height, the truth relative to the widest opening
    curves = {TRUE: known.tracks[0].opening[: len(frames)], SEEN: track.opening / (MAX_GAP / 2)}
    with atomic_path(out) as temporary, output_errors(out):
        picture(frames, load_track(video), curves).save(temporary, format="PNG")


def picture(
    frames: UInt8[np.ndarray, "F H W 3"], sound: Float[np.ndarray, " n"], curves: dict[str, Float[np.ndarray, " F"]]
) -> Image.Image:
    """The picture. `curves`: the mouth's opening, 0 to 1, by colour; NaN where it is not known."""
    side = (WIDTH - 2 * MARGIN) // SHOWN
    strip = side * frames.shape[1] // frames.shape[2]
    height = 2 * MARGIN + strip + SOUND + LINE + MOUTH + LINE
    image = Image.new("RGB", (WIDTH * FINER, height * FINER), WHITE)
    pen = ImageDraw.Draw(image)
    for place in range(SHOWN):
        number = int((place + 0.5) / SHOWN * len(frames))
        shown = Image.fromarray(frames[number]).resize((side * FINER, strip * FINER), Image.Resampling.BICUBIC)
        image.paste(shown, ((MARGIN + place * side) * FINER, MARGIN * FINER))
    top = MARGIN + strip
    _envelope(pen, sound, len(frames) / FRAME_RATE, (top + SOUND / 2) * FINER)
    top += SOUND
    _text(pen, MARGIN, top, "mouth's opening:", TEXT)
    _text(pen, MARGIN + 110, top, "truth of the speech", TRUE)
    _text(pen, MARGIN + 240, top, "read from the video", SEEN)
    top += LINE
    for colour, curve in curves.items():
        _curve(pen, curve, (top + MOUTH) * FINER, MOUTH * FINER, colour)
    for second in range(int(len(frames) / FRAME_RATE) + 1):
        at = MARGIN + second * FRAME_RATE / len(frames) * (WIDTH - 2 * MARGIN)
        _text(pen, at, top + MOUTH, f"{second} s", TEXT)
    return image.resize((WIDTH, height), Image.Resampling.LANCZOS)


def _envelope(pen: ImageDraw.ImageDraw, sound: Float[np.ndarray, " n"], seconds: float, middle: int | float) -> None:
    """A bar per column, as high as the loudest sample there."""
    columns = (WIDTH - 2 * MARGIN) * FINER
    edges = np.linspace(0, seconds * SAMPLE_RATE, columns, endpoint=False).astype(int)
    padded = np.pad(np.abs(sound), (0, max(0, edges[-1] + 1 - len(sound))))[: round(seconds * SAMPLE_RATE)]
    peaks = np.maximum.reduceat(padded, edges)
    for column, peak in enumerate(peaks / max(float(peaks.max()), 1e-6) * SOUND * FINER * 0.45):
        pen.line([(MARGIN * FINER + column, middle - peak), (MARGIN * FINER + column, middle + peak)], GREY)


def _curve(
    pen: ImageDraw.ImageDraw, values: Float[np.ndarray, " F"], base: int | float, height: int | float, colour: str
) -> None:
    step = (WIDTH - 2 * MARGIN) * FINER / len(values)
    points: list[Any] = []
    for number, value in enumerate([*values, np.nan]):
        if np.isfinite(value):
            points.append((MARGIN * FINER + (number + 0.5) * step, base - min(float(value), 1.1) / 1.1 * height))
            continue
        if len(points) > 1:
            pen.line(points, colour, width=2 * FINER, joint="curve")
        points = []


def _text(pen: ImageDraw.ImageDraw, x: int | float, y: int | float, text: str, colour: str) -> None:
    pen.text((x * FINER, (y + 2) * FINER), text, colour, ImageFont.load_default(11 * FINER))
