"""How drawn people move: free sway and blinks, gestures that follow their own speech, and listening."""

import numpy as np
from jaxtyping import Bool, Float

from itjax.media.containers import FRAME_RATE
from itjax.synthetic.face import Look, Pose
from itjax.synthetic.prosody import Prosody

# F frames

NOD = 0.24  # radians by which the head is lowered in the loudest speech
BROW_RAISE = 1.3  # by how much the brows (-1..1) rise from the lowest to the highest pitch
GESTURE_SECONDS = 0.24  # over which loudness and pitch are smoothed: a head is slower than a voice


def drift(rng: np.random.Generator, num_frames: int, seconds: float, amplitude: float) -> Float[np.ndarray, " F"]:
    """A smooth random track around 0 that changes direction about every `seconds`."""
    frames_per_knot = seconds * FRAME_RATE
    knots = rng.normal(0, amplitude, int(num_frames / frames_per_knot) + 5).clip(-2 * amplitude, 2 * amplitude)
    position = np.arange(num_frames) / frames_per_knot + rng.random()
    knot, t = position.astype(int), position % 1
    a, b, c, d = (knots[knot + i] for i in range(4))
    # a uniform cubic B-spline: smooth, without corners
    return ((1 - t) ** 3 * a + (3 * t**3 - 6 * t**2 + 4) * b + (-3 * t**3 + 3 * t**2 + 3 * t + 1) * c + t**3 * d) / 6


def blinks(rng: np.random.Generator, num_frames: int) -> Float[np.ndarray, " F"]:
    """Eye opening per frame: a blink every two to five seconds."""
    is_open, frame = np.ones(num_frames), rng.integers(10, 80)
    while frame < num_frames:
        for offset, value in enumerate((0.5, 0.05, 0.05, 0.5)):
            if frame + offset < num_frames:
                is_open[frame + offset] = value
        frame += int(rng.integers(50, 125))
    return is_open


def smoothed(track: Float[np.ndarray, " F"], seconds: float) -> Float[np.ndarray, " F"]:
    """The track under a Hann window of twice `seconds`, without delay."""
    half = max(1, round(seconds * FRAME_RATE))
    window = np.hanning(2 * half + 1)
    return np.convolve(np.pad(track, half, mode="edge"), window / window.sum(), "valid")


def with_gestures(pose: Pose, look: Look, prosody: Prosody) -> tuple[Pose, Look]:
    """Adds the gestures of a speaker: the head is lowered in loud speech, the brows rise with the pitch."""
    loudness = smoothed(prosody.loudness, GESTURE_SECONDS)
    pitch = smoothed(np.where(prosody.speaking, prosody.pitch - 0.4, 0.0), GESTURE_SECONDS)
    pose = pose._replace(pitch=pose.pitch + NOD * (loudness - 0.2), y=pose.y + 0.012 * loudness)
    return pose, look._replace(brows=(look.brows + BROW_RAISE * pitch).clip(-1, 1))


def with_listening(
    rng: np.random.Generator, pose: Pose, look: Look, listens: Bool[np.ndarray, " F"], toward: float
) -> tuple[Pose, Look]:
    """Adds the motion of a listener: looks at the speaker on the side `toward` (-1, 1), and small nods at times."""
    share = smoothed(listens.astype(np.float64), 0.5)
    nods, frame = np.zeros(len(listens)), int(rng.integers(15, 50))
    while frame < len(listens):
        length = int(rng.integers(16, 26))
        nod = np.sin(np.pi * np.arange(length) / length) * np.sin(2 * np.pi * np.arange(length) / 12.5)
        nods[frame : frame + length] = nod[: len(nods) - frame]
        frame += int(rng.integers(45, 100))
    pose = pose._replace(yaw=pose.yaw + 0.14 * toward * share, pitch=pose.pitch + 0.10 * nods * share)
    gaze = (look.gaze_x * (1 - 0.7 * share) + 0.7 * toward * share).clip(-1, 1)
    return pose, look._replace(gaze_x=gaze, smile=look.smile + 0.15 * share)
