"""Values that no trained network has are refused by the name of the tensor, wherever weights are read."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from itjax.configs.tiny import PRESET
from itjax.errors import UserError
from itjax.weights.lazy import LazyTensor
from itjax.weights.load import leaf, leaves
from itjax.weights.mapping import SAME, Source
from itjax.weights.official import DIT_STEM, open_official
from itjax.weights.plausible import FLOATS, LIMIT, is_plausible
from itjax.weights.specs import network_specs
from itjax.weights.store import restore, save
from itjax.weights.torch_files import TensorFiles

Q = "blocks.0.self_attn.q.weight"
SPECS = network_specs(PRESET.networks)


def sharded(official: Any) -> Path:
    """The shard with the tensor `Q`."""
    index = json.loads((official.ckpt_dir / f"{DIT_STEM}.safetensors.index.json").read_text())
    return official.ckpt_dir / index["weight_map"][Q]


@pytest.mark.parametrize("dtype", FLOATS)
def test_bad_values_are_found_in_every_type(dtype):
    values = np.linspace(-400, 400, 99).astype(dtype).reshape(3, 33)
    assert is_plausible(values) and is_plausible(values[:, 1:2]) and is_plausible(values[:0])
    for bad in (np.nan, -np.nan, np.inf, -np.inf, 1e38, -1e38, LIMIT):
        with np.errstate(over="ignore"):
            values[1, 7] = np.asarray(bad).astype(dtype)
        assert not is_plausible(values), bad
        assert not is_plausible(values[1, 7:8]), bad


def test_the_largest_usual_values_are_accepted():
    assert is_plausible(np.array([65504, -65504], np.float16))
    assert is_plausible(np.array([1e9, -1e9, -0.0], np.float32))
    assert is_plausible(np.array([np.iinfo(np.int64).max, -1])) and is_plausible(np.array([True]))


def test_a_flipped_exponent_in_official_files(copied):
    shard = sharded(copied)
    tensors = load_file(shard)
    bits = tensors[Q].view(np.uint32)
    bits[5, 3] ^= 1 << 30  # a weight of usual size becomes one of 1e36
    assert np.isfinite(tensors[Q]).all()
    save_file(tensors, shard)
    found = leaves(SPECS["dit"], open_official(*copied)["dit"], "dit")
    with pytest.raises(UserError, match=rf"{shard.name}: {Q} has values that are NaN, infinite or above 1e\+09"):
        found["blocks/q/kernel"].read(())
    found["blocks/k/kernel"].read(())


def test_nan_in_a_pth(copied):
    path = copied.pickles["vae"]
    state = torch.load(path)
    state["conv2.weight"].view(-1)[3] = float("nan")
    torch.save(state, path)
    found = leaves(SPECS["vae"], open_official(*copied)["vae"], "vae")
    with pytest.raises(UserError, match=rf"{path.name}: conv2\.weight has values that are NaN"):
        [kernel.read(()) for kernel in found.values()]


@pytest.mark.parametrize(
    ("dtypes", "common"),
    [
        (("float8_e4m3fn",) * 3, "float8_e4m3fn"),
        (("float8_e4m3fn", "bfloat16", "float8_e4m3fn"), "bfloat16"),
        (("float16", "float8_e4m3fn", "float8_e5m2"), "float16"),
        (("float8_e5m2", "bfloat16", "float32"), "float32"),
        (("float8_e5m2", "float8_e4m3fn", "float8_e5m2"), "bfloat16"),
    ],
)
def test_layers_of_different_types_are_stacked_without_loss(dtypes, common):
    values = [np.linspace(-1, 1, 7).astype(dtype) for dtype in dtypes]
    tensors = {f"blocks.{i}.w": LazyTensor((7,), x.dtype, x.__getitem__) for i, x in enumerate(values)}
    stack = leaf(Source("blocks/w", tuple(tensors), SAME, True, (3, 7)), TensorFiles(tensors))
    found = stack.read(())
    assert stack.dtype == found.dtype == common
    for layer, expected in zip(found, values, strict=True):
        np.testing.assert_array_equal(layer.astype(np.float64), expected.astype(np.float64))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nan_in_a_checkpoint(dtype, tmp_path):
    values = np.ones((3, 4), dtype)
    values[2, 1] = np.nan
    save(tmp_path / "weights", {"dit": {"w": LazyTensor((3, 4), values.dtype, lambda _: values)}}, {})
    with pytest.raises(UserError, match="weights: dit/w has values that are NaN"):
        restore(tmp_path / "weights", {"dit": {"w": jax.ShapeDtypeStruct((3, 4), np.float32)}})
