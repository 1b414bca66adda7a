"""A run of the writer that takes milliseconds: chunks of five random frames, with sound."""

import av
import numpy as np

from itjax.media.sound_track import SoundTrack
from itjax.media.writer import open_writer

SIZE = (32, 48)
CHUNK = 5


def movie(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


def frames_in(file):
    with av.open(str(file)) as container:
        return sum(1 for _ in container.decode(video=0))


def open_small(folder, resume=False, **changes):
    """A run of 25 frames a second with sound, in this process."""
    sound = SoundTrack(16000, 1, lambda: iter([np.zeros((16000, 1), np.float32)]))
    fingerprint = {"seed": 1, "steps": 40, **changes.pop("fingerprint", {})}
    return open_writer(folder / "a", changes.pop("size", SIZE), 25, sound, fingerprint, resume, **changes)


def append(run, floats=None):
    run.append(movie(CHUNK, run.next_chunk), floats, {"carry": np.arange(run.next_chunk + 1)})
