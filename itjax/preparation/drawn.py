"""Makes training records of drawn people (itjax.synthetic) without video files.

    python -m itjax.preparation.drawn dataset/ --checkpoint weights/itjax --clips 1000 --two_person_clips 200

The clips are those that `python -m itjax.synthetic` writes with the same seed and sizes, but without the losses of a video
file: the picture sizes are those of the preset's table for a square and for twice that width. Clips are drawn by as many
processes as the machine has cores. An interrupted run continues when it is started again with the same arguments.
"""

import argparse
import functools
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float32

from itjax.conditioning.persons import LATENT_STRIDE, person_masks
from itjax.config import SizeTable
from itjax.errors import UserError
from itjax.media.containers import FRAME_RATE
from itjax.media.speech import normalise_loudness
from itjax.parallel.sharding import make_mesh
from itjax.pipeline.process import default_dtype, keep_compiled_programs, memory_errors
from itjax.preparation import folder
from itjax.preparation.clips import Limits, ScannedVideo
from itjax.preparation.folder import ClipSpan
from itjax.preparation.prepare import encoding_arguments, write_missing
from itjax.preparation.settings import Settings
from itjax.preparation.shards import LoadedClip
from itjax.progress import SILENT, Progress
from itjax.records import Dataset, Layout
from itjax.synthetic import clip as clips
from itjax.synthetic.source import DrawnClips, person_boxes
from itjax.terminal import Terminal, run_command
from itjax.weights.sources import Weights, open_converted

MAX_PROCESSES = 16
AHEAD = 2  # clips per process that wait to be encoded
RATIOS = {1: 1.0, 2: 0.5}  # height / width of a picture of one person, and of two


class DrawnClip(NamedTuple):
    """Clip `number` of a source, and its prompt."""

    source: DrawnClips
    number: int
    prompt: str

    @property
    def name(self) -> str:
        """Names the clip as `python -m itjax.synthetic` does, with the number of persons."""
        return f"drawn{self.source.seed:04d}-{self.number:05d}-p{self.source.persons}"


def drawn_clips(table: SizeTable, seed: int, seconds: float, counts: dict[int, int]) -> list[DrawnClip]:
    """All clips: `counts` of them by number of persons, in the sizes of the table.

    Raises:
        UserError: If the table has no picture size of the right shape.
    """
    chosen = []
    for persons, count in counts.items():
        if count and RATIOS[persons] not in table:
            raise UserError(f"the preset has no picture size whose height is {RATIOS[persons]:g} times its width")
        if count:
            height, width = table[RATIOS[persons]]
            source = DrawnClips(seed, count, seconds, (height, width), persons=persons)
            prompts = (clips.prompt((seed, number), seconds, height, width, persons) for number in range(count))
            chosen += [DrawnClip(source, number, prompt) for number, prompt in enumerate(prompts)]
    return chosen


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
        read = functools.partial(read_drawn, chosen)
        return write_missing(read, scanned, out, work, settings, weights, mesh, progress)


def read_drawn(chosen: Sequence[DrawnClip], spans: Sequence[ClipSpan]) -> Iterator[LoadedClip]:
    """Yields the clips of the spans, in order, drawn ahead by processes.

    Raises:
        UserError: If espeak-ng is not installed.
    """
    processes = min(MAX_PROCESSES, os.cpu_count() or 1, len(spans))
    waiting: deque[Future[LoadedClip]] = deque()
    # started anew, not forked: JAX has threads
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        try:
            for span in spans:
                waiting.append(pool.submit(load, chosen[span.video]))
                if len(waiting) > AHEAD * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def load(drawn: DrawnClip) -> LoadedClip:
    """Draws a clip, as it would be read from files."""
    found, size = drawn.source[drawn.number], drawn.source.size
    tracks = [normalise_loudness(track) for track in (found["voices"] if drawn.source.persons > 1 else [found["sound"]])]
    masks = None
    if drawn.source.persons > 1:
        masks = person_masks(size, size, person_boxes(found["head_boxes"], *size), drawn.source.persons)
    return LoadedClip(drawn.name, drawn.prompt, 0, found["video"], tracks, masks, latent_cells(found["region"]))


def latent_cells(region: Bool[np.ndarray, "F H W"]) -> Float32[np.ndarray, "F h w"]:
    """The share of each latent cell that is in the region."""
    frames, height, width = region.shape
    cells = region.reshape(frames, height // LATENT_STRIDE, LATENT_STRIDE, width // LATENT_STRIDE, LATENT_STRIDE)
    return cells.mean(axis=(2, 4), dtype=np.float32)


def main(argv: list[str] | None = None, program: str = "python -m itjax.preparation.drawn") -> int:
    """Returns the exit status: 0 for success, 2 for a user error, 3 if a file cannot be written, 130 if interrupted."""
    args = _parser(program).parse_args(argv)
    kept = "finished shards are kept; run the same command to continue"
    return run_command(program, lambda: make_dataset(args), f"stopped; {kept}", kept)


def make_dataset(args: argparse.Namespace) -> None:
    """Makes the dataset described by the flags.

    Raises:
        UserError: If a flag or the checkpoint is invalid.
    """
    weights = open_converted(args.checkpoint, [])
    sizes, layout = weights.preset.sizes, Layout(args.frame_num, args.reference_stride, args.chunk_stride)
    if args.size not in sizes:
        raise UserError(f"--size {args.size}: must be one of {', '.join(sizes)} (preset {weights.preset.name})")
    frames = round(args.seconds * FRAME_RATE)
    if frames < layout.frame_num:
        raise UserError(f"--seconds {args.seconds:g}: shorter than a chunk of --frame_num {layout.frame_num}")
    dtype = jnp.dtype(default_dtype())
    settings = Settings(layout, args.size, Limits(frames, frames), args.batch, round(args.shard_mb * 1e6), dtype)
    counts = {1: args.clips, 2: args.two_person_clips}
    chosen = drawn_clips(sizes[args.size].table, args.seed, args.seconds, counts)
    if not chosen:
        raise UserError("--clips 0 --two_person_clips 0: nothing to draw")
    keep_compiled_programs()
    with memory_errors("encoding clips", "a smaller --batch"):
        prepare_drawn(args.out, chosen, settings, weights, make_mesh(1, 1, heads=1), Terminal())


def _parser(program: str) -> argparse.ArgumentParser:
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        program, description=description, epilog=more, formatter_class=argparse.RawTextHelpFormatter
    )
    number = lambda flag, default, text: parser.add_argument(
        flag, type=_count, default=default, metavar="N", help=f"{text} (default %(default)s)"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of the dataset")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="folder with the encoders' weights")
    number("--clips", 1000, "clips of one person")
    number("--two_person_clips", 0, "clips of two persons")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="length of a clip (default %(default)s)")
    number("--seed", 0, "random seed")
    parser.add_argument("--size", default="infinitetalk-480", help="table of picture sizes (default %(default)s)")
    number("--frame_num", 81, "frames per chunk, 4n+1")
    number("--chunk_stride", 40, "frames between the starts of chunks")
    number("--reference_stride", 20, "frames between references")
    number("--batch", 8, "chunks encoded at once on each device")
    parser.add_argument("--shard_mb", type=float, default=256.0, metavar="MB", help="largest size of a shard")
    return parser


def _count(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
