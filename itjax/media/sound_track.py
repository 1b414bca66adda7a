"""The sound on its way into the video: blocks of samples in, AAC packets out. Knows no container and no picture."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import av
import numpy as np
from jaxtyping import Float

from itjax.errors import UserError

# n samples of a block · C channels

PACKET = 1024  # samples per channel in one AAC packet, whatever the sample rate
SAMPLE_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)  # all of AAC's
LAYOUTS = {1: "mono", 2: "stereo"}
BIT_RATES = {1: 128_000, 2: 192_000}


class SoundTrack(NamedTuple):
    """Sound of any length. `blocks` starts it afresh at each call and gives the same samples each time, in -1..1."""

    sample_rate: int
    channels: int
    blocks: Callable[[], Iterator[Float[np.ndarray, "n C"]]]


def check(sound: SoundTrack) -> None:
    """Checks that the sound can be in the video.

    Raises:
        UserError: for sound that AAC cannot hold (or that we do not mix down).
    """
    if sound.sample_rate not in SAMPLE_RATES:
        rates = ", ".join(map(str, SAMPLE_RATES))
        raise UserError(f"The sound has {sound.sample_rate} samples a second; AAC knows {rates}. Resample it first.")
    if sound.channels not in LAYOUTS:
        raise UserError(f"The sound has {sound.channels} channels; the video takes 1 or 2. Mix it down first.")


def encoder_settings(sound: SoundTrack) -> dict:
    """Keyword arguments that describe the AAC stream, for the encoder and the container alike."""
    most = 6 * sound.sample_rate * sound.channels  # AAC allows at most 6144 bits per packet and channel
    return {
        "rate": sound.sample_rate,
        "layout": LAYOUTS[sound.channels],
        "bit_rate": min(BIT_RATES[sound.channels], most),
    }


def packets_for(sound: SoundTrack, frames: int, fps: int) -> int:
    """How many packets cover `frames` pictures: one of priming, then up to the first that ends not before they do."""
    return 1 + -(-frames * sound.sample_rate // (fps * PACKET))


def packets(sound: SoundTrack) -> Iterator[bytes]:
    """AAC packets without end; packet k is heard from sample (k-1)·1024 on, packet 0 being the encoder's priming.

    The bytes depend on the samples alone, so a run that goes on skips the packets which it already has. Encoding them
    again is cheaper than a second file to keep in step: AAC is made some hundred times faster than it is heard.
    """
    settings = encoder_settings(sound)
    encoder = av.CodecContext.create("aac", "w")
    encoder.sample_rate, encoder.layout, encoder.bit_rate = (settings[k] for k in ("rate", "layout", "bit_rate"))
    encoder.format = "fltp"
    for index, samples in enumerate(_frames(sound)):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=settings["layout"])
        frame.sample_rate, frame.pts = sound.sample_rate, index * PACKET
        for packet in encoder.encode(frame):
            yield bytes(packet)


def _frames(sound: SoundTrack) -> Iterator[Float[np.ndarray, "1024 C"]]:
    """The samples in encoder frames, and after the last sample silence without end."""
    rest = np.zeros((0, sound.channels), np.float32)
    for block in sound.blocks():
        if block.ndim != 2 or block.shape[1] != sound.channels:
            raise ValueError(f"A block of sound has shape {block.shape}, not [n, {sound.channels}].")
        rest = np.concatenate([rest, np.asarray(block, np.float32)])
        whole = len(rest) // PACKET * PACKET
        yield from rest[:whole].reshape(-1, PACKET, sound.channels)
        rest = rest[whole:]
    silence = np.zeros((PACKET, sound.channels), np.float32)
    yield np.concatenate([rest, silence])[:PACKET]
    while True:
        yield silence
