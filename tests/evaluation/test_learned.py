"""The learned metrics as the evaluation command uses them; the networks are stand-ins, and have tests of their own."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from itjax.errors import UserError
from itjax.evaluation import learned
from itjax.evaluation.arcface import ArcFace
from itjax.evaluation.learned import Clip, Distance, Identity, LipSync, Row, add_flags, load
from itjax.evaluation.syncnet import SyncNet


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path)
    parser.add_argument("--landmarks", type=Path)
    add_flags(parser)
    return parser.parse_args(arguments)


def test_nothing_is_computed_without_weights():
    assert load(parsed()) == []


@pytest.mark.parametrize(("name", "needed"), learned.NEEDED)
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


def test_a_distance_is_between_all_clips_and_all_sources():
    metric = Distance(Row("d", "distance", "low"), lambda x: x.reshape(len(x), -1)[:, :1].astype(np.float64))
    assert metric.total() == {}
    assert metric.add(Clip(frames(3, 5), source=frames(2, 1))) == {}
    metric.add(Clip(frames(2, 5), source=frames(4, 1)))
    metric.add(Clip(frames(2, 90)))  # without a source: not part of either set
    assert metric.total() == {"d": pytest.approx(16)}


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


def test_identity_is_compared_with_the_source_and_its_drift_is_seen(mesh):
    metric = Identity(Pixel())
    turning = np.concatenate([frames(1, round(60 + i / 5)) for i in range(100)])  # the cosine falls by about 0.6 in 4 s
    meshes = np.stack([mesh] * 100)
    meshes[10:20] = np.nan
    source = frames(2, 60)
    numbers = metric.add(Clip(turning, mesh=meshes, source=source, source_mesh=np.stack([np.full_like(mesh, np.nan), mesh])))
    assert numbers["csim"] == pytest.approx(np.cos(np.radians(10)), abs=0.02)
    assert numbers["csim_drift"] == pytest.approx((np.cos(np.radians(20)) - 1) / 4 * 10, abs=0.05)
    still = metric.add(Clip(frames(100, 60), mesh=np.stack([mesh] * 100), source=frames(1, 60), source_mesh=mesh[None]))
    assert still == pytest.approx({"csim": 1, "csim_drift": 0}, abs=1e-6)
    assert metric.add(Clip(turning[:30], mesh=meshes[:30], source=source[1:], source_mesh=mesh[None])).keys() == {"csim"}
    lost = np.full_like(meshes, np.nan)
    assert metric.add(Clip(turning)) == {}
    assert metric.add(Clip(turning, mesh=lost, source=source, source_mesh=meshes[:2])) == {}
    assert metric.add(Clip(turning, mesh=meshes, source=source, source_mesh=lost[:2])) == {}


class Levels(SyncNet):
    """A stand-in for SyncNet: lips and sound as their level over the window, spread over 20 features."""

    def __init__(self, levels):
        self.code = np.random.default_rng(0).normal(size=(len(levels), 20))
        self.count = 0

    def lips(self, faces):
        self.count = len(faces) - 4
        return self.code[faces[: self.count, 112, 112, 0]]

    def sound(self, mfcc, count):
        assert len(mfcc) >= 4 * (count - 1) + 20 and count == self.count
        return self.code[np.arange(count)]


def test_lips_are_compared_with_the_sound(mesh):
    metric = LipSync(Levels(range(200)))
    square = np.stack([mesh] * 100)
    late = np.concatenate([frames(1, max(0, i - 2)) for i in range(100)])  # shows at i what is heard at i-2
    numbers = metric.add(Clip(late, sound=np.zeros(64000), mesh=square))
    assert numbers.keys() == {row.key for row in metric.rows} and numbers["sync_lag"] == 2 and numbers["sync_c"] > 4
    assert metric.add(Clip(late, sound=np.zeros(40000), mesh=square))["sync_lag"] == 2  # the sound ends first
    for clip in (Clip(late, mesh=square), Clip(late, sound=np.zeros(64000)), Clip(late, np.zeros(30000), square)):
        assert metric.add(clip) == {}
    assert metric.total() == {}
