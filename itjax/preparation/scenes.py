"""Scenes: where a video is cut, found by PySceneDetect on frames at 25 a second, and pieces of bearable length."""

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

THRESHOLD = 27.0  # mean change of hue, saturation and brightness (0..255) that is a cut: PySceneDetect's own


def find_scenes(frames: Iterable[Picture]) -> list[range]:
    """The scenes of a video, in frames: together they are all of it.

    Every cut counts, also one right after another: a chunk across a cut teaches more wrong than a lost flash of light.
    """
    detector = ContentDetector(threshold=THRESHOLD, min_scene_len=0)
    edges, count, size = [0], 0, None
    for count, frame in enumerate(frames, start=1):
        size = size or _small(frame)
        picture = cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR), cv2.COLOR_RGB2BGR)
        edges += [cut.frame_num for cut in detector.process_frame(FrameTimecode(count - 1, float(FRAME_RATE)), picture)]
    edges = sorted({*edges, count})
    return [range(start, stop) for start, stop in itertools.pairwise(edges)]


def pieces(scene: range, least: int, most: int) -> Iterator[range]:
    """The scene in as few equal pieces as `most` allows.

    Where those had less than `least` frames, in pieces of `most` frames and a rest.
    """
    count = math.ceil(len(scene) / most)
    if count > 1 and len(scene) // count < least:
        edges = [*range(scene.start, scene.stop, most), scene.stop]
    else:
        edges = [scene.start + len(scene) * i // count for i in range(count + 1)]
    for start, stop in itertools.pairwise(edges):
        yield range(start, stop)


def _small(frame: Picture) -> tuple[int, int]:
    """(width, height) to look for cuts at: about 256 pixels wide, as PySceneDetect does."""
    height, width = frame.shape[:2]
    factor = compute_downscale_factor(width)
    return max(1, round(width / factor)), max(1, round(height / factor))
