"""The folder of a dataset in the making: what it is made from, what was found so far, and which shards are to be made.

Everything in it is whole or absent, and the shards follow from the scan alone: so a run that was killed goes on, and
one missing shard can be made again by itself.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from itjax.config import Networks
from itjax.disk import atomic_path, lock_folder, output_errors
from itjax.errors import UserError
from itjax.media import journal
from itjax.media.containers import FRAME_RATE
from itjax.preparation.clips import Scanned, scanned_from_json
from itjax.records import SPEECH_MARGIN, Layout, chunk_starts, reference_frames

WORK = "preparation"  # folder of what follows
ARGUMENTS, SCAN, TEXTS = "arguments.json", "scan.jsonl", "texts.safetensors"
SKIPPED = "skipped.jsonl"
TOLD = 10  # differences that are told one by one


class Piece(NamedTuple):
    """A clip to be made: frames start..stop-1 of a video, by its number."""

    video: int
    start: int
    stop: int


class PlannedShard(NamedTuple):
    """A shard to be made: its path within the dataset, the key of its bucket, and its clips."""

    path: str
    bucket: tuple[int, int, int]  # height, width, persons
    pieces: tuple[Piece, ...]


@contextlib.contextmanager
def opened(out: Path, arguments: Mapping[str, str]) -> Iterator[Path]:
    """The work folder of the dataset `out`, made where there is none, and held against other processes.

    Raises:
        UserError: where `out` is something else, was begun with other arguments, or another process holds it.
        OutputError: where the disk refuses.
    """
    work = out / WORK
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the dataset")
    if out.exists() and not work.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} has other things in it: name a new folder, or an empty one")
    with output_errors(out):
        work.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(out, f"Another process is writing {out}. Wait for it to finish, or stop it.")
    try:
        _check_arguments(work / ARGUMENTS, out, arguments)
        yield work
    finally:
        os.close(lock)


def _check_arguments(path: Path, out: Path, arguments: Mapping[str, str]) -> None:
    if not path.exists():
        _write(path, json.dumps(dict(arguments), indent=1))
        return
    try:
        before = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}). To start over, delete {out}.") from error
    if changed := journal.differences(before, arguments).splitlines():
        more = [f"  and {len(changed) - TOLD} more"] if len(changed) > TOLD else []
        said = "\n".join(changed[:TOLD] + more)
        raise UserError(
            f"{out} was begun with something else:\n{said}\n"
            "Go on with the same arguments and files, or name another folder, or delete this one."
        )


def forget(work: Path) -> None:
    """Takes back what was begun: where nothing came of it, the next start may have other files and arguments."""
    with output_errors(work):
        for name in (SCAN, ARGUMENTS):
            (work / name).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary, output_errors(path):
        # bytes of a file's name that are no UTF-8 become \udc80 to \udcff, which JSON reads as what they were
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


class ScanFile:
    """What was found in each video, one line a video, in their order; a line that a kill cut off does not count.

    Raises:
        UserError: where a line is not ours.
    """

    def __init__(self, path: Path):
        self._path, self.scanned, self._bytes = path, [], 0
        if not path.exists():
            return
        try:
            content = path.read_bytes()
            for line in content[: content.rfind(b"\n") + 1].splitlines(keepends=True):
                self.scanned.append(scanned_from_json(json.loads(line)))
                self._bytes += len(line)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error!r}). Delete it: the videos are looked through again.") from error

    def append(self, scanned: Scanned) -> None:
        """Adds the line of the next video, on the disk when this returns.

        Raises:
            OutputError: where the disk refuses.
        """
        line = json.dumps(scanned.to_json()).encode() + b"\n"
        with output_errors(self._path):
            journal.append(self._path, self._bytes, line)
        self._bytes += len(line)
        self.scanned.append(scanned)


def write_skipped(out: Path, scanned: Sequence[Scanned]) -> None:
    """skipped.jsonl: a line for each stretch of video that was left out, in frames, with the reason."""
    lines = [
        {"file": video.name, "start": start, "stop": stop, "reason": reason}
        for video in scanned
        for start, stop, reason in video.skipped
    ]
    _write(out / SKIPPED, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def tell_skipped(video: Scanned) -> Iterator[str]:
    """A line for people about each stretch that was left out."""
    for start, stop, reason in video.skipped:
        if start is None or stop is None:
            yield f"  skipped {video.name}: {reason}"
        else:
            yield f"  skipped {video.name} {start / FRAME_RATE:.2f}-{stop / FRAME_RATE:.2f} s: {reason}"


def plan_shards(scanned: Sequence[Scanned], networks: Networks, layout: Layout, limit: int) -> list[PlannedShard]:
    """All shards, bucket after bucket: clips in the order of their videos, each shard up to about `limit` bytes."""
    shards: list[PlannedShard] = []
    for bucket in sorted({(v.height, v.width, v.persons) for v in scanned if v.clips}):
        groups: list[list[Piece]] = [[]]
        filled = 0
        for number, video in enumerate(scanned):
            if (video.height, video.width, video.persons) != bucket:
                continue
            for start, stop in video.clips:
                nbytes = clip_bytes(networks, layout, bucket, stop - start)
                if groups[-1] and filled + nbytes > limit:
                    groups.append([])
                    filled = 0
                groups[-1].append(Piece(number, start, stop))
                filled += nbytes
        name = "{}x{}-p{}".format(*bucket)
        shards += [PlannedShard(f"{name}/{i:05d}.arrayrecord", bucket, tuple(pieces)) for i, pieces in enumerate(groups)]
    return shards


def clip_bytes(networks: Networks, layout: Layout, bucket: tuple[int, int, int], num_frames: int) -> int:
    """Bytes of a clip, but for its text (at most a few MB)."""
    height, width, persons = bucket
    vae, speech = networks.vae, networks.dit.audio
    chunks, references = len(chunk_starts(num_frames, layout)), len(reference_frames(num_frames, layout))
    times = 1 + (layout.frame_num - 1) // vae.time_stride
    cells = times * (height // vae.spatial_stride) * (width // vae.spatial_stride)
    latents = cells * vae.z_dim
    tokens = networks.clip.tokens * networks.clip.width
    heard = persons * (num_frames + 2 * SPEECH_MARGIN) * speech.layers * speech.channels
    shown = latents * (chunks * (1 + layout.ends) + references) + cells * chunks * layout.regions
    return 2 * (shown + tokens * references + heard)
