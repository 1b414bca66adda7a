"""Measures videos in parallel processes, each with one video and one thread at a time.

Who calls `measure` in a process of its own sets the threads itself: `OPENBLAS_NUM_THREADS=1` before NumPy is imported, and
`cv2.setNumThreads(1)`. More threads do not make it faster, as its matrices are small, but wait for work at full load.
"""

import contextlib
import os
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import cv2

from itjax.evaluation.video import Job, VideoMetrics, measure

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
ENDED = "{}: the process that measured it ended (is there too little memory?). Scale the video down, or cut it."


def measure_all(jobs: Sequence[Job]) -> Iterator[VideoMetrics]:
    """Measures videos on all cores; yields them as they are finished.

    If a process dies (killed for its memory, a crash in a decoder), only its video is lost.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if min(cores, len(jobs)) == 1:
        yield from map(measure, jobs)
        return
    unfinished = yield from _together(jobs, min(cores, len(jobs)))
    for job in unfinished:
        if (yield from _together([job], 1)):
            yield VideoMetrics(job.video.stem, 0, {}, {}, [], ENDED.format(job.video))


def _together(jobs: Sequence[Job], workers: int) -> Generator[VideoMetrics, None, list[Job]]:
    """Yields what was measured; returns the jobs that were not finished when a process died."""
    unfinished: list[Job] = []
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread)
    try:
        with one_thread_each():
            running = {pool.submit(measure, job): job for job in jobs}
        for future in as_completed(running):
            try:
                measured = future.result()
            except BrokenProcessPool:
                unfinished.append(running[future])
            else:
                yield measured
    finally:
        pool.shutdown(cancel_futures=True)
    return unfinished


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes that are started meanwhile compute matrices in one thread: NumPy looks at its environment when it loads."""
    before = {name: os.environ[name] for name in THREADS if name in os.environ}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name in THREADS:
            del os.environ[name]
        os.environ.update(before)


def _one_thread() -> None:
    cv2.setNumThreads(1)  # the processes are what runs in parallel
