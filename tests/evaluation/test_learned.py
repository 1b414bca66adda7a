"""The learned metrics as the evaluation command uses them; the networks are stand-ins, and have tests of their own."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import soundfile

from itjax.errors import UserError
from itjax.evaluation import learned_flags
from itjax.evaluation.arcface import ArcFace, align, five_points
from itjax.evaluation.clip import Clip, Person
from itjax.evaluation.face_points import points_of
from itjax.evaluation.learned import Distance, Identity, LipSync
from itjax.evaluation.learned_flags import add_flags, load
from itjax.evaluation.metrics import Metric
from itjax.evaluation.syncnet import SyncNet


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path)
    parser.add_argument("--landmarks", type=Path)
    add_flags(parser)
    return parser.parse_args(arguments)


def test_nothing_is_computed_without_weights():
    assert load(parsed()) == [] and not learned_flags.wanted(parsed())


@pytest.mark.parametrize(("name", "needed"), learned_flags.NEEDED)
def test_what_a_metric_needs_is_said(name, needed):
    others = [flag for flag in ("source", "landmarks") if flag != needed]
    with pytest.raises(UserError, match=f"--{name}_weights needs --{needed}"):
        load(parsed(f"--{name}_weights", "x", *(part for flag in others for part in (f"--{flag}", "y"))))


@pytest.mark.parametrize("name", ["fid", "fvd", "csim", "sync"])
def test_a_missing_file_is_said(name, tmp_path):
    with pytest.raises(UserError, match=r"weights\.file: no such file"):
        load(parsed(f"--{name}_weights", str(tmp_path / "weights.file"), "--source", "x", "--landmarks", "y"))


def frames(count, value=0):
    return np.full((count, 8, 8, 3), value, np.uint8)


def clip(given, source=None, people=(), piece=16):
    """A clip of arrays in pieces."""
    pieces = lambda x: lambda: iter([x[start : start + piece] for start in range(0, len(x), piece)])
    return Clip(Path("clip.mp4"), pieces(given), None if source is None else pieces(source), tuple(people))


def test_a_distance_is_between_all_clips_and_all_sources():
    features = lambda x: x.reshape(len(x), -1)[:, :1].astype(np.float64)
    metric = Distance(Metric("d", "", "low", "distance"), features)
    with pytest.raises(UserError, match="at least two samples in each set, not 0"):
        metric.total()
    assert metric.add(clip(frames(3, 5), frames(2, 1), piece=2)) == ({}, {})
    metric.add(clip(frames(2, 5), frames(4, 1)))
    metric.add(clip(frames(2, 90)))  # without a source: not part of either set
    assert metric.total() == {"d": (pytest.approx(16), 2, 5, 6)}
    nothing = Distance(Metric("d", "", "low", "distance"), lambda x: features(x)[16:])
    with pytest.raises(ValueError, match="shorter than 16 frames"):
        nothing.add(clip(frames(15), frames(40)))
    with pytest.raises(UserError, match="not 0"):
        nothing.total()


class Pixel(ArcFace):
    """A stand-in for ArcFace: the angle of the vector is the face's first pixel, in degrees."""

    def __init__(self):
        self.name, self.width = "stand-in", 2

    def __call__(self, faces):
        angle = np.radians(faces[:, 56, 56, 0].astype(np.float32))
        return np.stack([np.cos(angle), np.sin(angle)], 1)


@pytest.fixture
def mesh():
    points = np.zeros((468, 3))
    points[[33, 133], :2], points[[362, 263], :2] = (2, 2), (5, 2)
    points[4, :2], points[61, :2], points[291, :2] = (3.5, 4), (2, 6), (5, 6)
    return points


def person(mesh, count, lost=(), source=None, voice=None):
    """A face that stays where it is in `count` frames, without the frames `lost`; `source`: a picture of it."""
    meshes = np.stack([mesh] * count)
    meshes[list(lost)] = np.nan
    return Person(points_of(meshes), voice, None if source is None else align(source, five_points(mesh)))


def test_identity_is_compared_with_the_source_and_its_drift_is_seen(mesh):
    metric = Identity(Pixel())
    turning = np.concatenate([frames(1, round(60 + i / 5)) for i in range(100)])  # the cosine falls by about 0.6 in 4 s
    source = frames(2, 60)
    face = lambda count, lost=(): person(mesh, count, lost, source[0])
    found = metric.add(clip(turning, source, [face(100, range(10, 20))]))
    numbers, curve = found.numbers, found.curves["csim"]
    assert numbers["csim"] == pytest.approx(np.cos(np.radians(10)), abs=0.02)
    assert numbers["csim_drift"] == pytest.approx((np.cos(np.radians(20)) - 1) / 4 * 10, abs=0.05)
    assert len(curve) == 100 and np.isnan(curve[10:20]).all() and np.isfinite(np.delete(curve, range(10, 20))).all()
    still = metric.add(clip(frames(100, 60), source, [face(100)]))
    assert still.numbers == pytest.approx({"csim": 1, "csim_drift": 0}, abs=1e-6)
    assert metric.add(clip(turning[:30], source, [face(30)])).numbers.keys() == {"csim"}
    both = metric.add(clip(turning, source, [face(100), person(mesh, 100, (), frames(1, 80)[0])]))  # 20 degrees apart
    assert both.curves["csim"][50] == pytest.approx(np.cos(np.radians(10)), abs=1e-6)
    assert metric.add(clip(turning)) == ({}, {})
    with pytest.raises(ValueError, match=r"no face is found$"):
        metric.add(clip(turning, source, [face(100, range(100))]))
    with pytest.raises(ValueError, match="no face is found in the source"):
        metric.add(clip(turning, source, [person(mesh, 100)]))
    with pytest.raises(ValueError, match="no frame shows all faces"):
        metric.add(clip(turning, source, [face(100, range(50)), face(100, range(50, 100))]))


class Levels(SyncNet):
    """A stand-in for SyncNet: lips and sound as their level over the window, spread over 20 features."""

    def __init__(self, levels):
        self.code = np.random.default_rng(0).normal(size=(len(levels), 20))

    def lips(self, faces):
        return self.code[faces[: len(faces) - 4, 112, 112, 0]]

    def sound(self, mfcc, count):
        assert len(mfcc) >= 4 * (count - 1) + 20
        return self.code[np.arange(count)]


def test_lips_are_compared_with_the_sound(mesh, tmp_path):
    metric = LipSync(Levels(range(200)))
    late = np.concatenate([frames(1, max(0, i - 2)) for i in range(100)])  # shows at i what is heard at i-2
    for samples in (64000, 40000, 30000):
        soundfile.write(tmp_path / f"{samples}.wav", np.zeros(samples), 16000)
    said = lambda samples, piece=16: metric.add(
        clip(late, people=[person(mesh, 100, voice=tmp_path / f"{samples}.wav")], piece=piece)
    )
    numbers = said(64000).numbers
    assert numbers.keys() == {row.name for row in metric.rows} and numbers["sync_lag"] == 2 and numbers["sync_c"] > 4
    assert numbers == pytest.approx(said(64000, piece=100).numbers)  # windows that cross pieces are the same
    assert said(40000).numbers["sync_lag"] == 2  # the sound ends first
    with pytest.raises(ValueError, match="46 frames with sound are less than two seconds"):
        said(30000)
    with pytest.raises(ValueError, match="which voice is whose"):
        metric.add(clip(late, people=[person(mesh, 100)] * 2))
    with pytest.raises(UserError, match="no such file"):
        said(1)
    assert metric.total() == {}
