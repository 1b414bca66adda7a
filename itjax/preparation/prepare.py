"""Converts a folder of videos to a dataset: scans the videos, encodes the captions, then the clips, shard by shard."""

import contextlib
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import jax.numpy as jnp
from jax.sharding import Mesh

from itjax import records
from itjax.disk import check_output
from itjax.errors import UserError
from itjax.media.containers import FRAME_RATE
from itjax.pipeline.process import exact_float32
from itjax.preparation import folder
from itjax.preparation.clips import ScannedVideo, scan
from itjax.preparation.folder import PlannedShard
from itjax.preparation.settings import Settings
from itjax.preparation.shards import Reader, read_clips, write_shards
from itjax.preparation.videos import Video, find_videos, signatures
from itjax.progress import SILENT, Progress
from itjax.records import Bucket, Dataset, Shard
from itjax.weights.sources import Weights

MAX_SCAN_THREADS = 8  # videos scanned at once
A = TypeVar("A")
B = TypeVar("B")


def prepare(
    source: Path, out: Path, settings: Settings, weights: Weights, mesh: Mesh, progress: Progress = SILENT
) -> Dataset:
    """Makes the dataset `out`, or continues an interrupted one; returns it.

    Raises:
        UserError: if no clip is usable, a file has changed since the scan, or `out` is something else or was started with
            different arguments.
        OutputError: if a file cannot be written.
    """
    videos = find_videos(source, out)
    layout = replace(settings.layout, regions=any(video.region for video in videos))
    settings = settings._replace(layout=layout)
    with folder.open_work_folder(out, arguments_of(settings, weights, videos)) as work:
        scanned = scan_all(videos, settings, weights, folder.ScanFile(work / folder.SCAN_FILE), progress)
        folder.write_skipped(out, scanned)
        if not any(video.clips for video in scanned):
            reasons = "\n".join(line for video in scanned for line in folder.describe_skipped(video))
            folder.reset(work)
            raise UserError(f"{source}: no usable clip in {len(videos)} file(s):\n{reasons}")
        return write_missing(partial(read_clips, videos, scanned), scanned, out, work, settings, weights, mesh, progress)


def write_missing(
    read: Reader, scanned: Sequence[ScannedVideo], out: Path, work: Path, settings: Settings, weights: Weights, mesh: Mesh,
    progress: Progress,
) -> Dataset:  # fmt: skip
    """Writes what is missing of the dataset of the scanned videos, whose clips `read` returns; returns the dataset.

    Raises:
        UserError: if a clip cannot be read or encoded.
        OutputError: if a file cannot be written.
    """
    shards = folder.plan_shards(scanned, weights.preset.networks, settings.layout, settings.shard_bytes)
    missing = [shard for shard in shards if not (out / shard.path).is_file()]
    if missing or not (out / records.PROMPTS_FILE).is_file():
        _check_disk(out, missing, settings, weights)
        with exact_float32():
            write_shards(read, scanned, missing, out, work, settings, weights, mesh, progress)
    dataset = Dataset(out, weights.preset, settings.layout, weights.encoders, _buckets(shards))
    records.write_dataset(dataset)
    (work / folder.TEXTS_FILE).unlink(missing_ok=True)
    progress.notice(_summary(dataset))
    return dataset


def arguments_of(settings: Settings, weights: Weights, videos: Sequence[Video]) -> dict[str, str]:
    """Everything that determines the records."""
    files = {f"file {name}": value for name, value in signatures(videos).items()}
    limits = settings.limits
    return encoding_arguments(settings, weights) | {
        "--min_seconds": f"{limits.min_frames / FRAME_RATE:.2f}",
        "--max_seconds": f"{limits.max_frames / FRAME_RATE:.2f}",
        **files,
    }


def encoding_arguments(settings: Settings, weights: Weights) -> dict[str, str]:
    """What determines how clips become records."""
    layout = settings.layout
    return {
        "checkpoint": hashlib.sha256(weights.encoders.encode()).hexdigest()[:16],
        "--size": settings.size,
        "--frame_num": str(layout.frame_num),
        "--chunk_stride": str(layout.chunk_stride),
        "--reference_stride": str(layout.reference_stride),
        "--ends": str(layout.ends),
        "--shard_mb": f"{settings.shard_bytes / 1e6:g}",
        "--dtype": jnp.dtype(settings.dtype).name,
    }


def _check_disk(out: Path, shards: Sequence[PlannedShard], settings: Settings, weights: Weights) -> None:
    networks = weights.preset.networks
    sizes = (
        folder.clip_bytes(networks, settings.layout, shard.bucket, span.stop - span.start)
        for shard in shards
        for span in shard.spans
    )
    check_output(out / "records", sum(sizes))


def _buckets(shards: Sequence[PlannedShard]) -> tuple[Bucket, ...]:
    shards_of = lambda key: [shard for shard in shards if shard.bucket == key]
    to_shard = lambda shard: Shard(shard.path, tuple(span.stop - span.start for span in shard.spans))
    keys = dict.fromkeys(shard.bucket for shard in shards)
    return tuple(Bucket(*key, tuple(to_shard(shard) for shard in shards_of(key))) for key in keys)


def _summary(dataset: Dataset) -> str:
    frames = [frames for bucket in dataset.buckets for frames in bucket.num_frames]
    chunks = sum(len(records.chunk_starts(n, dataset.layout)) for n in frames)
    buckets = ", ".join(f"{bucket.name} ({len(bucket.num_frames)})" for bucket in dataset.buckets)
    return f"{dataset.folder}: {len(frames)} clips of {sum(frames) / FRAME_RATE:.1f} s, {chunks} chunks, in {buckets}"


# -- scanning ---------------------------------------------------------------------------------------------------------


def scan_all(
    videos: Sequence[Video], settings: Settings, weights: Weights, found: folder.ScanFile, progress: Progress
) -> list[ScannedVideo]:
    """Scans all videos except those in `found`, from an earlier run; returns all results."""
    table, stop = weights.preset.sizes[settings.size].table, threading.Event()
    done = len(found.scanned)
    if done:
        progress.notice(f"{done} of {len(videos)} files were already scanned")
    results = map_in_order(lambda video: scan(video, table, settings.limits, stop), videos[done:], MAX_SCAN_THREADS, stop)
    with contextlib.closing(results):
        for result in results:
            found.append(result)
            progress.notice(f"[{len(found.scanned)}/{len(videos)}] {result.name}: {len(result.clips)} clip(s)")
            for line in folder.describe_skipped(result):
                progress.notice(line)
    return found.scanned


def map_in_order(call: Callable[[A], B], items: Iterable[A], max_threads: int, stop: threading.Event) -> Generator[B]:
    """Yields `call`(item) for each item in order, computed ahead in threads; only a few results are buffered.

    `stop` is set at the end, also on interruption (Ctrl-C), so that running calls can end soon.
    """
    threads = min(max_threads, os.cpu_count() or 1)
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(call, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            stop.set()
            for future in waiting:
                future.cancel()
