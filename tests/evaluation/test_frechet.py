"""The Fréchet distance against closed forms, and its order under damage."""

import cv2
import numpy as np
import pytest
import scipy.linalg

from itjax.errors import UserError
from itjax.evaluation.frechet import Spread, frechet_distance


def standard(rng, count, width):
    """Vectors whose sample mean is exactly 0 and whose sample covariance is exactly the unit matrix."""
    x = rng.normal(size=(count, width))
    q, _ = np.linalg.qr(x - x.mean(0))
    return q * np.sqrt(count - 1)


def test_gaussians_have_their_closed_form():
    rng = np.random.default_rng(0)
    x, y = standard(rng, 300, 8), standard(rng, 200, 8)
    shift, first, second = rng.normal(size=8), rng.uniform(0.1, 3, 8), rng.uniform(0.1, 3, 8)
    # covariances that commute: |shift|² + sum of (σ₁-σ₂)²
    expected = np.sum(shift**2) + np.sum((first - second) ** 2)
    assert frechet_distance(x * first, y * second + shift) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(x, y) == pytest.approx(0, abs=1e-9)


def test_it_is_the_usual_formula_where_that_can_be_computed():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(100, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(80, 6)) + 1
    covariances = [np.cov(features, rowvar=False) for features in (x, y)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_fewer_samples_than_features_are_no_trouble():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(5, 400)).astype(np.float32)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + np.float32(0.5)) == pytest.approx(400 * 0.25, rel=1e-5)  # float32 features
    # rank one each, in orthogonal directions: nothing is shared
    a, b = np.zeros((2, 3)), np.zeros((2, 3))
    a[:, 0], b[:, 1] = (-1, 1), (-2, 2)
    assert frechet_distance(a, b) == pytest.approx(2 + 8)


def test_pieces_of_any_number_are_one_set():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(100, 6)) * [1, 2, 3, 4, 5, 6] + 50, rng.normal(size=(90, 6)) + 51
    parts = Spread(), Spread()
    for start in range(0, 100, 9):
        parts[start % 2].add(x[start : start + 9])
    parts[0].join(parts[1])
    assert parts[0].count == 100 and sum(len(rows) for rows in parts[0]._rows) <= 14  # not 100
    assert frechet_distance(parts[0], y) == pytest.approx(frechet_distance(x, y), rel=1e-9)


def test_more_damage_is_farther_away():
    rng = np.random.default_rng(3)
    pictures = np.stack([cv2.GaussianBlur(rng.random((32, 32, 3)), (0, 0), 1.5) for _ in range(60)])
    weights = rng.normal(size=(32 * 32 * 3, 64)) / 50
    features = lambda x: np.maximum(x.reshape(len(x), -1) @ weights, 0)
    noise = rng.normal(size=pictures.shape)
    noisy = [frechet_distance(features(pictures), features(pictures + s * noise)) for s in (0, 0.02, 0.05, 0.1, 0.3)]
    blurred = [
        frechet_distance(features(pictures), features(np.stack([cv2.GaussianBlur(x, (0, 0), s) for x in pictures])))
        for s in (0.3, 0.8, 2, 5)
    ]
    assert noisy == sorted(noisy) and blurred == sorted(blurred)
    assert noisy[0] == pytest.approx(0, abs=1e-9) and blurred[0] < blurred[-1]


def test_what_has_no_distance_is_refused():
    with pytest.raises(UserError, match="at least two samples in each set, not 1"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(UserError, match="not finite"):
        frechet_distance(np.array([[1.0], [np.nan]]), np.zeros((5, 1)))
