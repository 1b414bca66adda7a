"""CSIM: alignment of faces, and what is asked of the network's file. The network is a tiny one made here."""

import sys

import cv2
import numpy as np
import pytest
from stand_ins import save_network

from itjax.errors import UserError
from itjax.evaluation import arcface
from itjax.evaluation.arcface import ArcFace, align, embeddings, five_points, similarity


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return ArcFace(save_network(tmp_path_factory.mktemp("arcface") / "tiny.onnx"))


def mesh(points):
    """The face mesh whose five points are these."""
    full = np.zeros((468, 3))
    for corners, point in zip((arcface.LEFT_EYE, arcface.RIGHT_EYE), points[:2], strict=True):
        full[list(corners), :2] = point + np.array([(-5, 1), (5, -1)])
    full[arcface.NOSE, :2] = points[2]
    full[list(arcface.MOUTH_CORNERS), :2] = points[3:]
    return full


def picture(seed):
    return cv2.GaussianBlur(np.random.default_rng(seed).integers(0, 256, (150, 150, 3), np.uint8), (0, 0), 5)


PLACE = np.array([[0.9, 0.2, 15.0], [-0.2, 0.9, 40.0]])  # turned and scaled
POINTS = arcface.TEMPLATE @ PLACE[:, :2].T + PLACE[:, 2]


def test_a_similarity_is_found_again_and_is_never_a_reflection():
    np.testing.assert_allclose(similarity(arcface.TEMPLATE, POINTS), PLACE, atol=1e-9)
    mirrored = arcface.TEMPLATE * (-1, 1)
    turn = similarity(mirrored, arcface.TEMPLATE)[:, :2]
    assert np.linalg.det(turn) > 0


def test_the_five_points_come_from_the_mesh():
    np.testing.assert_allclose(five_points(mesh(POINTS)), POINTS)


def test_an_aligned_face_does_not_depend_on_where_it_was():
    face = picture(0)
    moved = cv2.warpAffine(face, PLACE, (200, 200), flags=cv2.INTER_CUBIC)
    direct, again = align(face, arcface.TEMPLATE), align(moved, POINTS)
    inside = (slice(4, -4),) * 2
    assert np.abs(direct[inside].astype(float) - again[inside]).mean() < 1  # level: interpolated twice
    np.testing.assert_array_equal(direct, face[:112, :112])


def test_the_same_face_is_nearer_than_another_and_a_missing_one_is_nan(net):
    frames = np.stack([picture(0), cv2.GaussianBlur(picture(0), (0, 0), 3), picture(1), picture(0)])
    points = np.stack([arcface.TEMPLATE] * 4)
    points[3] = np.nan
    vectors = embeddings(net, frames, points)
    np.testing.assert_allclose(np.linalg.norm(vectors[:3], axis=1), 1, rtol=1e-6)
    cosines = vectors @ vectors[0]
    assert cosines[0] == pytest.approx(1) and cosines[1] > 0.98 and cosines[2] < 0.7
    assert np.isnan(cosines[3])
    assert np.isnan(embeddings(net, frames[:1], points[3:])).all()


def test_pixels_are_normalised_as_insightface_does(net):
    face = np.zeros((1, 112, 112, 3), np.uint8)
    face[..., 0], face[..., 2] = 255, 127  # red 1, green -1, blue -1/255
    matrix = np.random.default_rng(0).normal(size=(3 * 49, 512)).astype(np.float32)
    expected = np.repeat(np.array([1, -1, -0.5 / 127.5]), 49) @ matrix
    np.testing.assert_allclose(net(face)[0], expected / np.linalg.norm(expected), atol=1e-5)  # float32 sums


def test_a_network_of_one_face_at_a_time_gives_the_same(net, tmp_path):
    single = ArcFace(save_network(tmp_path / "one.onnx", batch=1))
    faces = np.stack([picture(i)[:112, :112] for i in range(3)])
    np.testing.assert_allclose(single(faces), net(faces), atol=1e-5)  # float32 sums


def test_another_file_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"has inputs \[\['N', 3, 128, 128\]\].*one input \[N, 3, 112, 112\]"):
        ArcFace(save_network(tmp_path / "big.onnx", side=128))
    with pytest.raises(UserError, match="one output"):
        ArcFace(save_network(tmp_path / "narrow.onnx", width=10))
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(UserError, match=r"text\.onnx is not an ONNX network"):
        ArcFace(tmp_path / "text.onnx")
    with pytest.raises(UserError, match="no such file"):
        ArcFace(tmp_path / "missing.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r'CSIM needs onnxruntime: pip install "itjax\[metrics\]"'):
        ArcFace(tmp_path / "big.onnx")
