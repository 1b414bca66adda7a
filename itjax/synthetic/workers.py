"""Processes that make training data (drawing, speech synthesis) while the devices compute."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

MOST = 15
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@contextlib.contextmanager
def processes() -> Iterator[ProcessPoolExecutor]:
    """One process for each core but one, which is the training's own; at least one, at most `MOST`.

    They ignore what a terminal or `timeout` sends to all processes of a command, and end with the process that started them,
    however it ends. At the end of the block, work that has not begun is cancelled.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = max(1, min(MOST, cores - 1))
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        with _one_thread_each():
            for _ in range(count):  # a process is started when work is submitted and none is idle
                pool.submit(int)
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that are started meanwhile compute matrices in one thread: NumPy looks at its environment when it loads."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin() -> None:
    import cv2  # here: the process that trains may do without it

    cv2.setNumThreads(1)
    os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process of a pool would wait for work for ever, as it holds both ends of the queue."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
