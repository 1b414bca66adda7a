"""Pixels as CLIP takes them, against torch."""

import jax
import numpy as np
import pytest

from itjax.models.clip_pixels import CLIP_MEAN, CLIP_STD, clip_pixels, cubic_matrix


@pytest.mark.parametrize("shape", [(70, 50), (224, 224), (300, 901), (640, 640), (1280, 320), (7, 1500), (1, 1)])
def test_clip_pixels_follow_torch_up_and_down(shape):
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(0).uniform(-1, 1, (*shape, 3)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None], size=(224, 224), mode="bicubic", align_corners=False
    )
    theirs = (theirs[0].permute(1, 2, 0).numpy() * 0.5 + 0.5 - np.float32(CLIP_MEAN)) / np.float32(CLIP_STD)
    ours = jax.jit(clip_pixels)(image)
    assert ours.shape == (224, 224, 3) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-5)  # float32 both, of numbers up to 5; the order of sums differs


def test_cubic_weights_sum_to_one():
    for have, want in ((50, 224), (1000, 224), (1, 224), (3, 2)):
        np.testing.assert_allclose(cubic_matrix(have, want).sum(axis=1), 1, atol=1e-6)
