"""Writes a complete video as an mp4, from frames in memory and their audio."""

from itertools import islice
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float32, UInt8

from itjax.disk import atomic_path, output_errors
from itjax.errors import OutputError
from itjax.media import fragments, sound_track
from itjax.media.containers import FRAME_RATE, SAMPLE_RATE
from itjax.media.fragments import Counts, Format
from itjax.media.sound_track import SoundTrack

# F frames · H W pixels, even · n samples


def write_video(path: Path, frames: UInt8[np.ndarray, "F H W 3"], sound: Float32[np.ndarray, " n"] | None) -> None:
    """Writes an mp4 at 25 fps; the 16 kHz audio is padded with silence or cut to the length of the frames.

    The folder is created if necessary; an existing file is replaced once the new one is complete.

    Raises:
        OutputError: if writing fails.
    """
    track = None if sound is None else SoundTrack(SAMPLE_RATE, 1, lambda: iter([sound[:, None]]))
    fmt = Format(frames.shape[1], frames.shape[2], FRAME_RATE, track, "itjax")
    packets = [] if track is None else sound_track.packets(track)
    count = 0 if track is None else sound_track.packets_for(track, len(frames), FRAME_RATE)
    data = fragments.fragment(fmt, Counts(), frames, list(islice(packets, count)))
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, output_errors(path):
        fragmented = temporary.with_suffix(".part")
        fragmented.write_bytes(data)
        try:
            fragments.defragment(fragmented, temporary, fmt.comment)
        except av.error.FFmpegError as error:
            raise OutputError(f"cannot write {path}: {error}") from error
