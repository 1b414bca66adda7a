"""The metrics of talking-head papers that need published weights: FID, FVD, CSIM, Sync-C and Sync-D.

Each is computed only if the user names its weights, and its description names the exact network; nothing takes its place.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from itjax.evaluation.arcface import ArcFace, embeddings
from itjax.evaluation.clip import Clip, Person
from itjax.evaluation.estimates import Total
from itjax.evaluation.frechet import Spread, frechet_distance
from itjax.evaluation.i3d import CLIP_FRAMES, I3D
from itjax.evaluation.inception import Inception
from itjax.evaluation.lip_sync import agreement, boxes_of, crops, squares
from itjax.evaluation.metrics import NETWORKS, Metric
from itjax.evaluation.mfcc import mfcc
from itjax.evaluation.syncnet import MFCC_PER_FRAME, MFCC_WINDOW, WINDOW, SyncNet
from itjax.media.containers import FRAME_RATE, SAMPLE_RATE
from itjax.media.speech import load_track

# F frames · H W pixels · N vectors · D features

LEVELS = 32768  # of 16-bit sound


class Found(NamedTuple):
    """A clip's own numbers and curves (a value per frame) by name: none if only a set of clips has them."""

    numbers: dict[str, float]
    curves: dict[str, Float[np.ndarray, " F"]]


@runtime_checkable
class NetworkMetric(Protocol):
    """One or several numbers of a set of clips."""

    @property
    def rows(self) -> tuple[Metric, ...]:
        """What it reports."""

    def add(self, clip: Clip) -> Found:
        """The clip's own numbers, after one pass over its frames.

        Raises:
            ValueError, UserError: If the clip lacks what is needed. It is not part of the set then.
        """

    def total(self) -> dict[str, Total]:
        """The numbers of the set of all clips added so far: empty if they are means of the clips' own.

        Raises:
            UserError: If there are too few.
        """


class Distance:
    """Fréchet distance between the features of all clips and of all their sources."""

    def __init__(self, row: Metric, features: Callable[[UInt8[np.ndarray, "F H W 3"]], Float[np.ndarray, "N D"]]):
        self.rows = (row,)
        self._features = features
        self._sets = Spread(), Spread()
        self._clips = 0

    def add(self, clip: Clip) -> Found:
        """Adds the features of the clip and its source, if that is known; there is no number for one clip."""
        if clip.source is not None:
            spreads = Spread(), Spread()
            for spread, pieces in zip(spreads, (clip.frames, clip.source), strict=True):
                for piece in pieces():
                    if len(vectors := self._features(piece)):
                        spread.add(vectors)
            if not all(spread.count for spread in spreads):
                raise ValueError(f"it or its source is shorter than {CLIP_FRAMES} frames")
            for whole, part in zip(self._sets, spreads, strict=True):
                whole.join(part)
            self._clips += 1
        return Found({}, {})

    def total(self) -> dict[str, Total]:
        """The distance.

        Raises:
            UserError: If a set has fewer than two vectors.
        """
        made, real = (spread.count for spread in self._sets)
        return {self.rows[0].name: Total(frechet_distance(*self._sets), self._clips, made, real)}


class Identity:
    """CSIM: cosine between the embeddings of the source's face and of the face in each frame, and its change over time."""

    def __init__(self, net: ArcFace):
        self._net = net
        about = f"ArcFace {net.name}, aligned by face mesh"
        self.rows = (
            Metric("csim", NETWORKS, "high", f"CSIM ({about}; to the first face of the source)"),
            Metric("csim_drift", NETWORKS, "0", f"change of CSIM per 10 s ({about})"),
        )

    def curve(self, clip: Clip) -> Float[np.ndarray, " F"]:
        """The cosine in each frame: the mean over the persons, NaN where one is not found.

        Raises:
            ValueError: If no person is found both in the clip and in its source.
        """
        people = [person for person in clip.people if person.source_face is not None]
        if not people:
            raise ValueError("no face is found in the source")
        people = [person for person in people if np.isfinite(person.points.five).any()]
        if not people:
            raise ValueError("no face is found")
        own = [self._net(person.source_face[None])[0] for person in people if person.source_face is not None]
        cosines: list[list[Float[np.ndarray, " n"]]] = [[] for _ in people]
        start = 0
        for piece in clip.frames():
            for person, source, found in zip(people, own, cosines, strict=True):
                found.append(embeddings(self._net, piece, person.points.five[start : start + len(piece)]) @ source)
            start += len(piece)
        return np.stack([np.concatenate(found) for found in cosines]).mean(0, dtype=np.float64)

    def add(self, clip: Clip) -> Found:
        """The mean over the frames with a face, and from two seconds on the slope of a least-squares line."""
        if clip.source is None:
            return Found({}, {})
        curve = self.curve(clip)
        found = np.flatnonzero(np.isfinite(curve))
        if not len(found):
            raise ValueError("no frame shows all faces")
        numbers = {"csim": float(curve[found].mean())}
        if found[-1] - found[0] >= 2 * FRAME_RATE - 1:
            numbers["csim_drift"] = float(10 * FRAME_RATE * np.polyfit(found, curve[found], 1)[0])
        return Found(numbers, {"csim": curve})

    def total(self) -> dict[str, Total]:
        """Empty: the set's numbers are the means of the clips'."""
        return {}


class LipSync:
    """Sync-C and Sync-D by SyncNet, and the shift at which they are found."""

    rows = (
        Metric("sync_c", NETWORKS, "high", "Sync-C (SyncNet v2; crops by face mesh)"),
        Metric("sync_d", NETWORKS, "low", "Sync-D (SyncNet v2; crops by face mesh)"),
        Metric("sync_lag", NETWORKS, "0", "frames by which the lips are late (SyncNet v2; crops by face mesh)"),
    )

    def __init__(self, net: SyncNet):
        self._net = net

    def add(self, clip: Clip) -> Found:
        """The means over the persons, each with the person's own voice."""
        people = [(person, person.voice) for person in clip.people if person.voice is not None]
        if not people:
            raise ValueError("it is not known which voice is whose: NAME.1.wav and NAME.2.wav should be next to the video")
        found = [self._person(clip, person, voice) for person, voice in people]
        return Found({name: float(np.mean([each[name] for each in found])) for name in found[0]}, {})

    def _person(self, clip: Clip, person: Person, voice: Path) -> dict[str, float]:
        samples = load_track(voice)
        count = min(len(person.points.box), len(samples) * FRAME_RATE // SAMPLE_RATE)
        places = squares(boxes_of(person.points.box[:count]))[: count - 1]  # the official code leaves the last window out
        coefficients = mfcc(np.round(np.clip(samples, -1, 1) * (LEVELS - 1)))
        windows = min(count - WINDOW, 1 + (len(coefficients) - MFCC_WINDOW) // MFCC_PER_FRAME)
        result = agreement(self._lips(clip, places)[:windows], self._net.sound(coefficients, windows))
        return {"sync_c": result.confidence, "sync_d": result.distance, "sync_lag": float(result.lag)}

    def _lips(self, clip: Clip, places: Float[np.ndarray, "F 3"]) -> Float[np.ndarray, "N D"]:
        """The vectors of all windows of 5 frames; those that cross pieces are computed with the later piece."""
        vectors, start, before = [], 0, np.zeros((0, 0, 0, 3), np.uint8)
        for piece in clip.frames():
            known = places[start : start + len(piece)]
            if not len(known):
                break
            faces = crops(piece[: len(known)], known)
            faces = np.concatenate([before, faces]) if len(before) else faces
            if len(faces) >= WINDOW:
                vectors.append(self._net.lips(faces))
            start, before = start + len(piece), faces[1 - WINDOW :]
        return np.concatenate(vectors)

    def total(self) -> dict[str, Total]:
        """Empty: the set's numbers are the means of the clips'."""
        return {}


FID = Metric(
    "fid", NETWORKS, "low", "FID (Inception v3 2015-12-05, 2048 features after pooling; all frames against their sources')"
)
FVD = Metric(
    "fvd", NETWORKS, "low", f"FVD (I3D Kinetics-400, logits; consecutive clips of {CLIP_FRAMES} frames, 224x224)"
)  # fmt: skip


def load_metrics(fid: Path | None, fvd: Path | None, csim: Path | None, sync: Path | None) -> list[NetworkMetric]:
    """The metrics whose weights are given.

    Raises:
        UserError: If a package or a file is missing, or a file holds another network.
    """
    metrics: list[NetworkMetric] = []
    if fid is not None:
        metrics.append(Distance(FID, Inception(fid)))
    if fvd is not None:
        metrics.append(Distance(FVD, I3D(fvd)))
    if csim is not None:
        metrics.append(Identity(ArcFace(csim)))
    if sync is not None:
        metrics.append(LipSync(SyncNet(sync)))
    return metrics
