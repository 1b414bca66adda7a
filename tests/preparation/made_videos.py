"""Small videos made on the spot: pictures that move without a jump, noise for a voice, files of every kind of wrong."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image

RATE = 16_000
SIDE = 64
BOXES = '{"bbox": {"person1": [0, 0, 64, 20], "person2": [0, 40, 64, 64]}}'

# arguments of the command: the smallest chunks; a shard for each clip
FLAGS = ["--frame_num", "17", "--chunk_stride", "8", "--reference_stride", "4", "--shard_mb", "0.1", "--ends"]


def moving(frames: int, seed: int = 0, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """Pictures uint8 [F, H, W, 3]: waves that wander over a colour of the seed's; other seeds are far other colours."""
    base = np.random.default_rng(seed).permutation([40, 120, 200])
    k, y, x = np.mgrid[:frames, :height, :width].astype(np.float32)
    wave = 30 * np.sin((x + 0.7 * k) / 9) + 20 * np.cos((y - 0.4 * k) / 7)
    return np.clip(base + wave[..., None], 0, 255).astype(np.uint8)


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that swells and fades three times a second, mono at 16 kHz."""
    t = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.1, len(t))
    return (noise * (1 + 0.8 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def write(path: Path, frames: np.ndarray, sound: np.ndarray | None, rate: int = 25, keyframes: int = 12) -> Path:
    """An mp4 (H.264 and AAC), with a keyframe every so many frames."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": "12", "g": str(keyframes), "threads": "1"})
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
        audio = None if sound is None else container.add_stream("aac", rate=RATE, layout="mono")
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None:
            for start in range(0, len(sound), 1024):
                block = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
                block.rate, block.pts, block.time_base = RATE, start, Fraction(1, RATE)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def damage(path: Path, kind: str, packet: int, nbytes: int = 4) -> Path:
    """Changes some bytes within the file's packet number `packet` of this kind ("video" or "audio")."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux() if p.size and p.stream.type == kind]
        start, size = packets[packet].pos, packets[packet].size
    content = bytearray(path.read_bytes())
    for at in np.random.default_rng(1).integers(start + size // 4, start + size, nbytes):
        content[at] ^= 0xFF
    path.write_bytes(content)
    return path


def usable(folder: Path) -> None:
    """Three videos: two scenes with a caption, one of 30 frames a second, two persons with boxes in a folder below.

    In the second scene the upper left quarter is marked as a region, with the two persons the lower half.
    """
    (folder / "pair").mkdir(parents=True)
    write(folder / "cut.mp4", np.concatenate([moving(25, 1), moving(25, 2)]), voice(2))
    (folder / "cut.txt").write_text("A man speaks.\n")
    region = np.zeros((50, SIDE, SIDE, 3), np.uint8)
    region[25:, : SIDE // 2, : SIDE // 2] = 255
    write(folder / "cut.region.mp4", region, None)
    write(folder / "thirty.mp4", moving(42, 3), voice(1.4, 3), rate=30)
    write(folder / "pair/two.mp4", moving(50, 4), None)
    soundfile.write(folder / "pair/two.1.wav", voice(2, 4), RATE)
    soundfile.write(folder / "pair/two.2.wav", voice(0.8, 5), RATE)
    (folder / "pair/two.json").write_text(BOXES)
    still = np.zeros((SIDE, SIDE), np.uint8)
    still[SIDE // 2 :] = 255
    Image.fromarray(still).save(folder / "pair/two.region.png")


UNUSABLE = {  # name: a part of the reason that is given
    "alone.mp4": "alone.2.wav is missing",
    "badly_captioned.mp4": "badly_captioned.txt cannot be read as UTF-8 text",
    "boxes.mp4": "boxes.json cannot be read",
    "cover.png": "an image, not a video",
    "empty.mp4": "the file is empty",
    "marked.mp4": "marked.region.png is 32x64 pixels, but the video has 64x64: make them the same size",
    "mute.mp4": "silent: the video has no audio",
    "short.mp4": "too short: 10 frames (0.40 s) between cuts, at least 17 are required",
    "silent.mp4": "silent: 0% of its frames are louder than -50 dBFS",
    "spoilt_sound.mp4": "unreadable: the audio is damaged",
    "text.mp4": "cannot be read as an image or a video",
    "truncated.mp4": "cannot be read as an image or a video",
}


def unusable(folder: Path) -> None:
    """The files of UNUSABLE, and what lies beside them."""
    good = write(folder / "short.mp4", moving(10), voice(0.4))
    for name in ("alone.mp4", "badly_captioned.mp4", "boxes.mp4", "marked.mp4"):
        (folder / name).write_bytes(good.read_bytes())
    soundfile.write(folder / "alone.1.wav", voice(0.4), RATE)
    (folder / "badly_captioned.txt").write_bytes(b"\xff\xfe\xfd")
    for number in (1, 2):
        soundfile.write(folder / f"boxes.{number}.wav", voice(0.4), RATE)
    (folder / "boxes.json").write_text('{"bbox": [1, 2]}')
    Image.fromarray(moving(1)[0]).save(folder / "cover.png")
    (folder / "empty.mp4").touch()
    Image.fromarray(moving(1, height=32)[0]).save(folder / "marked.region.png")
    write(folder / "mute.mp4", moving(20), None)
    write(folder / "silent.mp4", moving(20), np.zeros(RATE, np.float32))
    damage(write(folder / "spoilt_sound.mp4", moving(20), voice(0.8)), "audio", 5, nbytes=200)
    (folder / "text.mp4").write_text("this is no video")
    whole = write(folder / "truncated.mp4", moving(20), voice(0.8)).read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
