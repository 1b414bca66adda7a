"""Sync-C and Sync-D on made-up vectors, and the crops of faces."""

import numpy as np
import pytest
import scipy.signal

from itjax.evaluation import lip_sync
from itjax.evaluation.lip_sync import agreement, boxes_of, crops, squares


@pytest.mark.parametrize("late", [0, 3, -7])
def test_the_shift_between_lips_and_sound_is_found(late):
    track = np.random.default_rng(0).normal(size=(160, 16))
    result = agreement(lips=track[20 - late : 140 - late], sound=track[20:140])
    assert result.lag == late
    lag0 = agreement(lips=track[20:140], sound=track[20:140])
    # |difference| of independent vectors of 16 features: about (2·16)^½; what is shifted by k meets k zeros at an end
    assert lag0.distance == pytest.approx(0, abs=1e-5) and lag0.confidence == pytest.approx(32**0.5, rel=0.1)
    assert result.distance <= 4.1 * abs(late) / 120 + 1e-5


def test_worse_agreement_has_lower_confidence_and_larger_distance():
    rng = np.random.default_rng(1)
    sound, noise = rng.normal(size=(2, 120, 16))
    results = [agreement(sound + level * noise, sound) for level in (0, 0.3, 1, 3)]
    assert [r.confidence for r in results] == sorted((r.confidence for r in results), reverse=True)
    assert [r.distance for r in results] == sorted(r.distance for r in results)


def test_distances_are_those_of_the_official_code():
    import torch

    lips, sound = (torch.from_numpy(x) for x in np.random.default_rng(2).normal(size=(2, 40, 8)))
    padded = torch.nn.functional.pad(sound, (0, 0, 15, 15))
    distances = torch.stack(
        [torch.nn.functional.pairwise_distance(lips[[i]].repeat(31, 1), padded[i : i + 31]) for i in range(len(lips))], 1
    ).mean(1)
    low, at = distances.min(0)
    expected = (float(distances.median() - low), float(low), 15 - int(at))
    assert agreement(lips.numpy(), sound.numpy()) == pytest.approx(expected, abs=1e-9)


def around(center, half, frames=60):
    """The same box in each frame."""
    return np.tile([center[0] - half, center[1] - half, center[0] + half, center[1] + half], (frames, 1)).astype(float)


def test_lost_faces_are_interpolated_but_not_over_a_second():
    found = around((50, 40), 10) + np.arange(60)[:, None] * [1, 0, 1, 0]
    found[10:20] = np.nan
    np.testing.assert_allclose(boxes_of(found), [(40 + i, 30, 60 + i, 50) for i in range(60)])
    found[10:36] = np.nan  # 26 frames
    for lost in (found, np.full((60, 4), np.nan)):
        with pytest.raises(ValueError, match="no face is found for more than a second"):
            boxes_of(lost)
    with pytest.raises(ValueError, match="49 frames with sound are less than two seconds"):
        boxes_of(around((50, 40), 10, frames=49))


def test_a_crop_reaches_below_the_face_and_is_grey_outside():
    picture = np.zeros((100, 120, 3), np.uint8)
    picture[30:50, 40:60] = 255  # the box of the face
    faces = crops(np.stack([picture] * 60), squares(around((50, 40), 10)))
    # 28 pixels wide (from 36 to 64) and high (30 to 58), made 224: 8 for each
    white = np.zeros((224, 224), bool)
    white[: 20 * 8, 4 * 8 : 24 * 8] = True
    assert faces.shape == (60, 224, 224, 3) and np.mean((faces[30, ..., 0] > 127) == white) > 0.99
    edge = crops(np.stack([picture] * 60), squares(around((5, 40), 10)))[30]
    np.testing.assert_array_equal(edge[:, 0], np.full((224, 3), lip_sync.GREY))


def test_the_median_is_that_of_scipy():
    track = np.random.default_rng(3).uniform(1, 9, 40)
    np.testing.assert_array_equal(lip_sync._median(track), scipy.signal.medfilt(track, 13))
