"""The metrics of talking-head papers that need published weights: FID, FVD, CSIM, Sync-C and Sync-D.

Each is computed only if the user names its weights, and its title names the exact network; nothing takes its place.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from itjax.errors import UserError
from itjax.evaluation.arcface import ArcFace, embeddings
from itjax.evaluation.frechet import frechet_distance
from itjax.evaluation.i3d import CLIP_FRAMES, I3D, PACKAGE
from itjax.evaluation.inception import Inception
from itjax.evaluation.lip_sync import agreement, boxes_of, crops
from itjax.evaluation.mfcc import mfcc
from itjax.evaluation.syncnet import MFCC_PER_FRAME, MFCC_WINDOW, WINDOW, SyncNet
from itjax.media.containers import FRAME_RATE, SAMPLE_RATE

# F frames · H W pixels · n samples

LEVELS = 32768  # of 16-bit sound


class Clip(NamedTuple):
    """What these metrics read of a video. `sound`: mono, 16 kHz, -1..1. `mesh`: the face's 468 points, NaN without a face.

    `source`: the real video or picture (one frame) that it was made from, with its own mesh. What is unknown is None, and
    metrics that need it have no value for the clip.
    """

    frames: UInt8[np.ndarray, "F H W 3"]
    sound: Float[np.ndarray, " n"] | None = None
    mesh: Float[np.ndarray, "F 468 3"] | None = None
    source: UInt8[np.ndarray, "S h w 3"] | None = None
    source_mesh: Float[np.ndarray, "S 468 3"] | None = None


class Row(NamedTuple):
    """A row of the table of metrics: its key in JSON, its title with the exact network, and the desired value."""

    key: str
    title: str
    desired: str


@runtime_checkable
class Metric(Protocol):
    """One or several numbers of a set of clips."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """What it reports."""

    def add(self, clip: Clip) -> dict[str, float]:
        """The clip's own numbers by the rows' keys: empty if only a set has them, or the clip lacks what is needed."""

    def total(self) -> dict[str, float]:
        """The numbers of the set of all clips added so far: empty if they are means of the clips' own."""


class Distance:
    """Fréchet distance between the features of all clips and of all their sources."""

    def __init__(self, row: Row, features: Callable[[UInt8[np.ndarray, "F H W 3"]], Float[np.ndarray, "N D"]]):
        self.rows = (row,)
        self._features = features
        self._made: list[Float[np.ndarray, "N D"]] = []
        self._real: list[Float[np.ndarray, "N D"]] = []

    def add(self, clip: Clip) -> dict[str, float]:
        """Remembers the features; there is no number for one clip."""
        if clip.source is not None:
            self._made.append(self._features(clip.frames))
            self._real.append(self._features(clip.source))
        return {}

    def total(self) -> dict[str, float]:
        """The distance; empty unless both sets have at least two vectors."""
        sets = [np.concatenate(features) for features in (self._made, self._real) if features]
        if len(sets) < 2 or min(len(features) for features in sets) < 2:
            return {}
        return {self.rows[0].key: frechet_distance(*sets)}


class Identity:
    """CSIM: cosine between the embeddings of the source's face and of the face in each frame, and its change over time."""

    def __init__(self, net: ArcFace):
        self._net = net
        about = f"ArcFace {net.name}, aligned by face mesh"
        self.rows = (
            Row("csim", f"CSIM ({about}; to the first face of the source)", "high"),
            Row("csim_drift", f"change of CSIM per 10 s ({about})", "0"),
        )

    def curve(self, clip: Clip) -> Float[np.ndarray, " F"] | None:
        """The cosine in each frame, NaN without a face; None if the source has no face or is unknown."""
        if clip.mesh is None or clip.source is None or clip.source_mesh is None:
            return None
        faces = np.flatnonzero(np.isfinite(clip.source_mesh).all((1, 2)))
        if not len(faces):
            return None
        first = slice(faces[0], faces[0] + 1)
        source = embeddings(self._net, clip.source[first], clip.source_mesh[first])[0]
        return embeddings(self._net, clip.frames, clip.mesh) @ source

    def add(self, clip: Clip) -> dict[str, float]:
        """The mean over the frames with a face, and from two seconds on the slope of a least-squares line."""
        curve = self.curve(clip)
        if curve is None or not np.isfinite(curve).any():
            return {}
        found = np.flatnonzero(np.isfinite(curve))
        numbers = {"csim": float(curve[found].mean())}
        if found[-1] - found[0] >= 2 * FRAME_RATE - 1:
            numbers["csim_drift"] = float(10 * FRAME_RATE * np.polyfit(found, curve[found], 1)[0])
        return numbers

    def total(self) -> dict[str, float]:
        """Empty: the set's numbers are the means of the clips'."""
        return {}


class LipSync:
    """Sync-C and Sync-D by SyncNet, and the shift at which they are found."""

    rows = (
        Row("sync_c", "Sync-C (SyncNet v2; crops by face mesh)", "high"),
        Row("sync_d", "Sync-D (SyncNet v2; crops by face mesh)", "low"),
        Row("sync_lag", "frames by which the lips are late (SyncNet v2; crops by face mesh)", "0"),
    )

    def __init__(self, net: SyncNet):
        self._net = net

    def add(self, clip: Clip) -> dict[str, float]:
        """The clip's numbers; empty without sound, in less than two seconds, or if the face is lost for more than one."""
        if clip.sound is None or clip.mesh is None:
            return {}
        count = min(len(clip.frames), len(clip.sound) * FRAME_RATE // SAMPLE_RATE)
        boxes = boxes_of(clip.mesh[:count])
        if boxes is None:
            return {}
        samples = np.round(np.clip(clip.sound, -1, 1) * (LEVELS - 1))
        faces = crops(clip.frames[:count], boxes)[: count - 1]  # the official code leaves the last window out
        coefficients = mfcc(samples)
        windows = min(count - WINDOW, 1 + (len(coefficients) - MFCC_WINDOW) // MFCC_PER_FRAME)
        result = agreement(self._net.lips(faces)[:windows], self._net.sound(coefficients, windows))
        return {"sync_c": result.confidence, "sync_d": result.distance, "sync_lag": float(result.lag)}

    def total(self) -> dict[str, float]:
        """Empty: the set's numbers are the means of the clips'."""
        return {}


FID = Row("fid", "FID (Inception v3 2015-12-05, 2048 features after pooling; every frame against every source frame)", "low")
FVD = Row("fvd", f"FVD (I3D Kinetics-400, logits; consecutive clips of {CLIP_FRAMES} frames, 224x224)", "low")


# what each metric needs besides its weights
NEEDED = (("fid", "source"), ("fvd", "source"), ("csim", "source"), ("csim", "landmarks"), ("sync", "landmarks"))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for the weights of each network."""
    group = parser.add_argument_group(
        "metrics of published networks", "Computed if their weights, which are not part of itjax, are given."
    )
    group.add_argument(
        "--fid_weights", type=Path, metavar="FILE", help="FID against --source: pt_inception-2015-12-05-6726825d.pth"
    )
    group.add_argument(
        "--fvd_weights", type=Path, metavar="FILE",
        help=f"FVD against --source: i3d-kinetics-400.ckpt, or {PACKAGE} for the weights in that package",
    )  # fmt: skip
    group.add_argument(
        "--csim_weights", type=Path, metavar="FILE", help="CSIM to --source by --landmarks: an ArcFace network in ONNX"
    )
    group.add_argument(
        "--sync_weights", type=Path, metavar="FILE", help="Sync-C and Sync-D by --landmarks: syncnet_v2.model"
    )


def load(args: argparse.Namespace) -> list[Metric]:
    """The metrics whose weights the flags of `add_flags` name. `args` also has `source` and `landmarks`, paths or None.

    Raises:
        UserError: If a package, a file, or another flag that a metric needs is missing, or a file holds another network.
    """
    for flag, needed in NEEDED:
        if getattr(args, f"{flag}_weights") is not None and getattr(args, needed) is None:
            raise UserError(f"--{flag}_weights needs --{needed}")
    metrics: list[Metric] = []
    if args.fid_weights is not None:
        metrics.append(Distance(FID, Inception(args.fid_weights)))
    if args.fvd_weights is not None:
        metrics.append(Distance(FVD, I3D(args.fvd_weights)))
    if args.csim_weights is not None:
        metrics.append(Identity(ArcFace(args.csim_weights)))
    if args.sync_weights is not None:
        metrics.append(LipSync(SyncNet(args.sync_weights)))
    return metrics
