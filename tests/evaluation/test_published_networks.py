"""The networks that are written out here, against torch with the same random weights: SyncNet, and Inception for FID.

`tests/recordings/evaluation/published.safetensors`: `inception` is what torch-fidelity 0.4.0 computes in float32 with the
weights of `random_weights.py` from the pictures below, resized to 75 px instead of 299; `mfcc` is from
python_speech_features 0.6.
"""

import jax
import numpy as np
import pytest
import torch
from random_weights import random_tensors
from safetensors.numpy import load_file, save_file
from torch import nn

from itjax.errors import UserError
from itjax.evaluation import inception, syncnet
from itjax.evaluation.inception import Inception
from itjax.evaluation.mfcc import mfcc
from itjax.evaluation.syncnet import SyncNet
from itjax.evaluation.torch_networks import torch_shapes, units


@pytest.fixture(scope="module")
def published(recordings):
    return load_file(recordings / "evaluation" / "published.safetensors")


def test_mfcc_are_those_of_python_speech_features(published):
    samples = np.random.default_rng(1).normal(0, 3000, 4801).astype(np.int16)
    np.testing.assert_allclose(mfcc(samples), published["mfcc"], atol=1e-10)  # float64 both
    assert mfcc(np.zeros(100)).shape == (1, 13) and np.isfinite(mfcc(np.zeros(100))).all()


def test_inception_is_that_of_torch_fidelity(published, tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "SIDE", 75)  # the smallest that its strides allow
    monkeypatch.setattr(inception, "BATCH", 2)
    shapes = torch_shapes(units(inception.features, jax.ShapeDtypeStruct((2, 75, 75, 3), np.float32)))
    assert len(shapes) == 470  # the published file has two more, of the classifier, and counters
    save_file(random_tensors(shapes) | {"fc.weight": np.zeros((1008, 2048), np.float32)}, tmp_path / "x.safetensors")
    pictures = np.random.default_rng(0).integers(0, 256, (3, 64, 48, 3), np.uint8)
    found = Inception(tmp_path / "x.safetensors")(pictures)
    np.testing.assert_allclose(found, published["inception"], atol=2e-5)  # of 0.4: float32, sums in another order


def torch_syncnet(part, sizes, convolution, norm, pool):
    """One branch of SyncNet in torch; `sizes`: (in, out, kernel, stride, padding) of a convolution, or () for nothing."""
    layers = []
    for size, pooling in sizes:
        given, width, kernel, stride, padding = size
        layers += [convolution(given, width, kernel, stride, padding), norm(width), nn.ReLU()]
        layers += [pool(*pooling)] if pooling else []
    head = nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))
    return nn.ModuleDict({f"netcnn{part}": nn.Sequential(*layers), f"netfc{part}": head})


LIPS = (
    ((3, 96, (5, 7, 7), (1, 2, 2), 0), ((1, 3, 3), (1, 2, 2))),
    ((96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1)), ((1, 3, 3), (1, 2, 2), (0, 1, 1))),
    ((256, 256, (1, 3, 3), 1, (0, 1, 1)), None),
    ((256, 256, (1, 3, 3), 1, (0, 1, 1)), None),
    ((256, 256, (1, 3, 3), 1, (0, 1, 1)), ((1, 3, 3), (1, 2, 2))),
    ((256, 512, (1, 6, 6), 1, 0), None),
)
SOUND = (
    ((1, 64, 3, 1, 1), (1, 1)),
    ((64, 192, 3, 1, 1), (3, (1, 2))),
    ((192, 384, 3, 1, 1), None),
    ((384, 256, 3, 1, 1), None),
    ((256, 256, 3, 1, 1), (3, 2)),
    ((256, 512, (5, 4), 1, 0), None),
)


@pytest.fixture(scope="module")
def lip_sync():
    """Lips and sound in torch, with random weights, and all their tensors."""
    parts = [
        torch_syncnet("lip", LIPS, nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d),
        torch_syncnet("aud", SOUND, nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d),
    ]
    tensors = {}
    for part in parts:
        shapes = {name: tuple(x.shape) for name, x in part.state_dict().items() if x.ndim}
        random = {name: torch.from_numpy(x) for name, x in random_tensors(shapes).items()}
        part.load_state_dict(random, strict=False)
        part.eval()
        tensors |= part.state_dict()
    return *parts, tensors


def test_syncnet_is_the_published_one(lip_sync, tmp_path, monkeypatch):
    monkeypatch.setattr(syncnet, "BATCH", 2)  # as many windows as the test has
    lips, sound, tensors = lip_sync
    # the published file is older than torch's zip archives
    torch.save(tensors, tmp_path / "syncnet_v2.model", _use_new_zipfile_serialization=False)
    ours = SyncNet(tmp_path / "syncnet_v2.model")
    rng = np.random.default_rng(0)
    faces, coefficients = rng.integers(0, 256, (6, 224, 224, 3), np.uint8), rng.normal(size=(25, 13)) * 10
    bgr = torch.from_numpy(faces[..., ::-1].astype(np.float32)).permute(3, 0, 1, 2)
    windows = torch.stack([torch.from_numpy(coefficients[i : i + 20].T).float()[None] for i in (0, 4)])
    with torch.no_grad():
        seen = lips["netfclip"](lips["netcnnlip"](torch.stack([bgr[:, :5], bgr[:, 1:]])).flatten(1)).numpy()
        heard = sound["netfcaud"](sound["netcnnaud"](windows).flatten(1)).numpy()
    # float32 both; the batch norm is folded in here, and sums are in another order
    for found, expected in ((ours.lips(faces), seen), (ours.sound(coefficients, 2), heard)):
        assert found.shape == expected.shape == (2, 1024)
        np.testing.assert_allclose(found, expected, atol=1e-5 * expected.std(), rtol=1e-4)


def test_another_file_is_refused(lip_sync, tmp_path):
    tensors = {name: torch.ones(()).expand(x.shape) for name, x in lip_sync[2].items()}  # a file of one value each: small
    shape = jax.ShapeDtypeStruct((1, 20, 224, 224, 3), np.float32)
    assert torch_shapes(units(syncnet.lips, shape)).keys() < tensors.keys()
    missing = tensors.pop("netcnnlip.0.weight")
    torch.save(tensors | {"head.weight": missing}, tmp_path / "other.model")
    with pytest.raises(UserError, match=r"(?s)other\.model is not SyncNet v2.*netcnnlip\.0\.weight.*head\.weight"):
        SyncNet(tmp_path / "other.model")
    torch.save(tensors | {"netcnnlip.0.weight": missing[:, :1]}, tmp_path / "grey.model")
    with pytest.raises(UserError, match=r"netcnnlip\.0\.weight: expected \[96, 3, 5, 7, 7\], found \[96, 1, 5, 7, 7\]"):
        SyncNet(tmp_path / "grey.model")
    torch.save(tensors | {"netcnnlip.0.weight": missing * float("nan")}, tmp_path / "damaged.model")
    with pytest.raises(UserError, match=r"damaged\.model: netcnnlip\.0 has values that are not finite"):
        SyncNet(tmp_path / "damaged.model")
    with pytest.raises(UserError, match=r"It should be the weights of Inception v3 for FID \(pt_inception"):
        Inception(tmp_path / "missing.pth")
