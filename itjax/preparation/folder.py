"""The work folder of an unfinished dataset: its arguments, the scan of the videos so far, and the plan of the shards.

All files are written atomically, and the shards depend only on the scan. Therefore a killed run can continue, and a single
missing shard can be recreated.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from itjax.config import Networks
from itjax.disk import atomic_path, lock_folder, output_errors
from itjax.errors import UserError, first_ten
from itjax.input_files import read_json
from itjax.media import journal
from itjax.media.containers import FRAME_RATE
from itjax.preparation.clips import ScannedVideo, scanned_from_json
from itjax.records import SPEECH_MARGIN, Layout, chunk_starts, reference_frames

WORK_FOLDER = "preparation"  # the work folder; contains the files of the next line
ARGUMENTS_FILE, SCAN_FILE, TEXTS_FILE = "arguments.json", "scan.jsonl", "texts.safetensors"
SKIPPED_FILE = "skipped.jsonl"
ARGUMENT_BYTES = 256_000_000  # of the arguments, which have a line per video


class ClipSpan(NamedTuple):
    """A clip to encode: frames start..stop-1 of the video with this index."""

    video: int
    start: int
    stop: int


class PlannedShard(NamedTuple):
    """A shard to write: its path within the dataset, the key of its bucket, and its clips."""

    path: str
    bucket: tuple[int, int, int]  # height, width, persons
    spans: tuple[ClipSpan, ...]


@contextlib.contextmanager
def open_work_folder(out: Path, arguments: Mapping[str, str]) -> Iterator[Path]:
    """Yields the work folder of the dataset `out`, created if necessary, and locks it against other processes.

    Raises:
        UserError: if `out` is something else, was started with different arguments, or is locked by another process.
        OutputError: if a file cannot be written.
    """
    work = out / WORK_FOLDER
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder for the dataset")
    if out.exists() and not work.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} contains other files: choose a new or empty folder")
    with output_errors(out):
        work.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(out, f"Another process is writing {out}. Wait for it to finish, or stop it.")
    try:
        _check_arguments(work / ARGUMENTS_FILE, out, arguments)
        yield work
    finally:
        os.close(lock)


def _check_arguments(path: Path, out: Path, arguments: Mapping[str, str]) -> None:
    if not path.exists():
        _write(path, json.dumps(dict(arguments), indent=1))
        return
    try:
        before = dict(read_json(path, ARGUMENT_BYTES))
    except (UserError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}). To start over, delete {out}.") from error
    if changed := journal.differences(before, arguments).splitlines():
        listing = first_ten([line.strip() for line in changed], "\n  ")
        raise UserError(
            f"{out} was started with different arguments or files:\n  {listing}\n"
            "Use the same arguments and files to continue, choose another folder, or delete this one."
        )


def reset(work: Path) -> None:
    """Deletes the arguments and the scan, so that after a run without usable clips the next one may have others."""
    with output_errors(work):
        for name in (SCAN_FILE, ARGUMENTS_FILE):
            (work / name).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary, output_errors(path):
        # non-UTF-8 bytes of a file name are written as \udc80 to \udcff, from which JSON restores them
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


class ScanFile:
    """The scan results so far, one line per video, in order. An incomplete last line, left by a kill, is ignored.

    Raises:
        UserError: if the file or a line cannot be read.
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
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path} cannot be read ({error!r}). Delete it to scan the videos again.") from error

    def append(self, scanned: ScannedVideo) -> None:
        """Appends the next video's line; durable when this returns.

        Raises:
            OutputError: if writing fails.
        """
        line = json.dumps(scanned.to_json()).encode() + b"\n"
        with output_errors(self._path):
            journal.append(self._path, self._bytes, line)
        self._bytes += len(line)
        self.scanned.append(scanned)


def write_skipped(out: Path, scanned: Sequence[ScannedVideo]) -> None:
    """Writes skipped.jsonl: one line per skipped range of frames, with the reason."""
    lines = [
        {"file": video.name, "start": start, "stop": stop, "reason": reason}
        for video in scanned
        for start, stop, reason in video.skipped
    ]
    _write(out / SKIPPED_FILE, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def describe_skipped(video: ScannedVideo) -> Iterator[str]:
    """One line of text per skipped range of frames."""
    for start, stop, reason in video.skipped:
        if start is None or stop is None:
            yield f"  skipped {video.name}: {reason}"
        else:
            yield f"  skipped {video.name} {start / FRAME_RATE:.2f}-{stop / FRAME_RATE:.2f} s: {reason}"


def plan_shards(scanned: Sequence[ScannedVideo], networks: Networks, layout: Layout, limit: int) -> list[PlannedShard]:
    """All shards, bucket by bucket: clips in the order of the videos, at most about `limit` bytes per shard."""
    shards: list[PlannedShard] = []
    for bucket in sorted({(v.height, v.width, v.persons) for v in scanned if v.clips}):
        groups: list[list[ClipSpan]] = [[]]
        shard_bytes = 0
        for number, video in enumerate(scanned):
            if (video.height, video.width, video.persons) != bucket:
                continue
            for start, stop in video.clips:
                nbytes = clip_bytes(networks, layout, bucket, stop - start)
                if groups[-1] and shard_bytes + nbytes > limit:
                    groups.append([])
                    shard_bytes = 0
                groups[-1].append(ClipSpan(number, start, stop))
                shard_bytes += nbytes
        name = "{}x{}-p{}".format(*bucket)
        shards += [PlannedShard(f"{name}/{i:05d}.arrayrecord", bucket, tuple(spans)) for i, spans in enumerate(groups)]
    return shards


def clip_bytes(networks: Networks, layout: Layout, bucket: tuple[int, int, int], num_frames: int) -> int:
    """Size of a clip in bytes, without its text (at most a few MB)."""
    height, width, persons = bucket
    vae, speech = networks.vae, networks.dit.audio
    chunks, references = len(chunk_starts(num_frames, layout)), len(reference_frames(num_frames, layout))
    times = 1 + (layout.frame_num - 1) // vae.time_stride
    cells = times * (height // vae.spatial_stride) * (width // vae.spatial_stride)
    latents = cells * vae.z_dim
    tokens = networks.clip.tokens * networks.clip.width
    speech_values = persons * (num_frames + 2 * SPEECH_MARGIN) * speech.layers * speech.channels
    latent_values = latents * (chunks * (1 + layout.ends) + references) + cells * chunks * layout.regions
    return 2 * (latent_values + tokens * references + speech_values)
