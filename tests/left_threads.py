"""Threads that something failed has left: what a process would wait for at its end."""

import threading
import time

POOLS = "grain-prefetch", "metadata_store", "asyncio"


def wait_for_threads() -> None:
    """Waits as a process does at its end: for all threads but the daemons and those of pools, which end by themselves.

    Until then they may still write, and report what went wrong in them.
    """
    waits = lambda thread: not (thread.daemon or thread is threading.main_thread() or thread.name.startswith(POOLS))
    give_up = time.monotonic() + 60
    while names := [thread.name for thread in threading.enumerate() if waits(thread)]:
        assert time.monotonic() < give_up, names
        time.sleep(0.005)
