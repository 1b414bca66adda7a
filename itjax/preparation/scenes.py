"""Detects cuts with PySceneDetect on frames at 25 per second, and splits scenes into parts of limited length."""

import itertools
import math
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import UInt8
from scenedetect import ContentDetector, FrameTimecode
from scenedetect.scene_manager import compute_downscale_factor

from itjax.media.containers import FRAME_RATE

Picture = UInt8[np.ndarray, "H W 3"]

THRESHOLD = 27.0  # mean change of hue, saturation and brightness (0..255) that counts as a cut: PySceneDetect's default


def find_scenes(frames: Iterable[Picture]) -> list[range]:
    """The scenes of a video as ranges of frames, which together cover all of it.

    Every detected cut counts, even directly after another one: training on a chunk across a cut is worse than losing a few
    frames around a flash of light.
    """
    detector = ContentDetector(threshold=THRESHOLD, min_scene_len=0)
    edges, count, size = [0], 0, None
    for count, frame in enumerate(frames, start=1):
        size = size or _small(frame)
        picture = cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR), cv2.COLOR_RGB2BGR)
        edges += [cut.frame_num for cut in detector.process_frame(FrameTimecode(count - 1, float(FRAME_RATE)), picture)]
    edges = sorted({*edges, count})
    return [range(start, stop) for start, stop in itertools.pairwise(edges)]


def split_scene(scene: range, min_frames: int, max_frames: int) -> Iterator[range]:
    """Splits the scene into as few equal parts of at most `max_frames` as possible.

    If these would be shorter than `min_frames`, splits it into parts of `max_frames` and a remainder instead.
    """
    count = math.ceil(len(scene) / max_frames)
    if count > 1 and len(scene) // count < min_frames:
        edges = [*range(scene.start, scene.stop, max_frames), scene.stop]
    else:
        edges = [scene.start + len(scene) * i // count for i in range(count + 1)]
    for start, stop in itertools.pairwise(edges):
        yield range(start, stop)


def _small(frame: Picture) -> tuple[int, int]:
    """(width, height) for cut detection: about 256 pixels wide, as in PySceneDetect."""
    height, width = frame.shape[:2]
    factor = compute_downscale_factor(width)
    return max(1, round(width / factor)), max(1, round(height / factor))
