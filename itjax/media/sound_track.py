"""Encodes the video's audio: blocks of samples in, AAC packets out. Independent of containers and frames."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import av
import numpy as np
from jaxtyping import Float

from itjax.errors import UserError

# n samples of a block · C channels

PACKET = 1024  # samples per channel in one AAC packet, whatever the sample rate
SAMPLE_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)  # all AAC rates
LAYOUTS = {1: "mono", 2: "stereo"}
BIT_RATES = {1: 128_000, 2: 192_000}


class SoundTrack(NamedTuple):
    """Audio of any length. Each call of `blocks` starts from the beginning and yields the same samples, in -1..1."""

    sample_rate: int
    channels: int
    blocks: Callable[[], Iterator[Float[np.ndarray, "n C"]]]


def check(sound: SoundTrack) -> None:
    """Checks that the audio can be stored in the video, and encodes its beginning: an hour later would be late.

    Raises:
        UserError: if AAC does not support the sample rate, the channels would have to be mixed down, or the audio cannot be
            decoded or encoded.
    """
    if sound.sample_rate not in SAMPLE_RATES:
        rates = ", ".join(map(str, SAMPLE_RATES))
        raise UserError(f"The audio has {sound.sample_rate} samples per second; AAC supports {rates}. Resample it first.")
    if sound.channels not in LAYOUTS:
        raise UserError(f"The audio has {sound.channels} channels; the video supports 1 or 2. Mix it down first.")
    try:
        next(packets(sound))
    except (av.FFmpegError, ValueError) as error:
        raise UserError(f"The audio cannot be encoded as AAC ({error}). Convert it to 16-bit WAV first.") from error


def encoder_settings(sound: SoundTrack) -> dict:
    """Settings of the AAC stream, for both the encoder and the container."""
    max_bit_rate = 6 * sound.sample_rate * sound.channels  # AAC allows at most 6144 bits per packet and channel
    return {
        "rate": sound.sample_rate,
        "layout": LAYOUTS[sound.channels],
        "bit_rate": min(BIT_RATES[sound.channels], max_bit_rate),
    }


def packets_for(sound: SoundTrack, frames: int, fps: int) -> int:
    """Number of packets that cover `frames` frames: the priming packet, then as many as reach at least their end."""
    return 1 + -(-frames * sound.sample_rate // (fps * PACKET))


def packets(sound: SoundTrack) -> Iterator[bytes]:
    """Yields AAC packets endlessly; packet k starts at sample (k-1)·1024, as packet 0 is the encoder's priming packet.

    The bytes depend only on the samples, so a resumed run skips the packets that it already has. Encoding them again is
    simpler than keeping a second file in sync, and cheap: AAC encoding is about a hundred times faster than real time.
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
    """The samples in frames for the encoder, followed by endless silence."""
    rest = np.zeros((0, sound.channels), np.float32)
    for block in sound.blocks():
        if block.ndim != 2 or block.shape[1] != sound.channels:
            raise ValueError(f"A block of audio has shape {block.shape}, not [n, {sound.channels}].")
        rest = np.concatenate([rest, np.asarray(block, np.float32)])
        whole = len(rest) // PACKET * PACKET
        yield from rest[:whole].reshape(-1, PACKET, sound.channels)
        rest = rest[whole:]
    silence = np.zeros((PACKET, sound.channels), np.float32)
    yield np.concatenate([rest, silence])[:PACKET]
    while True:
        yield silence
