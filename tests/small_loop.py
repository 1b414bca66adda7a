"""A loop with a carry, as generation is: frames depend on all the chunks before. Takes milliseconds a chunk, with sound."""

import time

import numpy as np

from itjax.media.sound_track import SoundTrack
from itjax.media.writer import open_writer

CHUNK = 5


def _blocks():
    yield from np.random.default_rng(7).normal(0, 0.1, (40, 4000, 1)).astype(np.float32)


def loop(folder, chunks, waits=False):
    """Makes `folder`/a.mp4 and a.npy, or goes on with them. Prints each chunk that is kept; with `waits`, a kill ends it."""
    sound, array = SoundTrack(16000, 1, _blocks), f"{folder}/a.npy"
    with open_writer(f"{folder}/a", (32, 48), 25, sound, {"seed": 3}, resume=True, save_frames=array) as run:
        carry = run.state["carry"] if run.state else np.array(0.5, np.float32)
        print("open", run.next_chunk, flush=True)
        while run.next_chunk < chunks and not run.finished:
            floats = np.random.default_rng(run.next_chunk).uniform(-1, 1, (CHUNK, 32, 48, 3)).astype(np.float32) * carry
            carry = np.asarray(np.abs(floats).mean() * 2, np.float32)
            run.append(np.uint8(np.rint((floats + 1) * 127.5)), floats, {"carry": carry})
            print("kept", run.next_chunk, flush=True)
        while waits:
            time.sleep(1)
        run.finish()
