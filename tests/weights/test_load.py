"""Parameters from files of tensors: slices, shards on eight devices, casts, and what is said where something is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itjax.errors import UserError
from itjax.weights.load import leaves, load, torch_view
from itjax.weights.mapping import to_jax, torch_shapes
from itjax.weights.torch_files import TensorFiles

ROOT = Path(__file__).parents[2]
PICKED = ("patch_embedding/kernel", "blocks/ffn_in/kernel", "blocks/modulation", "blocks/norm_q/scale", "head/kernel")


@pytest.fixture(scope="module")
def dit_leaves(tiny_parts, tiny_files):
    return leaves(tiny_parts["dit"], tiny_files["dit"], "the DiT")


@pytest.mark.parametrize("network", ["dit", "vae", "umt5", "clip", "wav2vec2"])
def test_leaves_are_what_the_table_makes_of_the_tensors(network, tiny_parts, tiny_files):
    part, files = tiny_parts[network], tiny_files[network]
    expected = to_jax(
        part.table, part.abstract, {name: files.read(name) for name in torch_shapes(part.table, part.abstract)}
    )
    for path, leaf in leaves(part, files, network).items():
        array = expected
        for key in path.split("/"):
            array = array[key]
        found = leaf.read(())
        assert (leaf.shape, leaf.dtype) == (found.shape, found.dtype)
        np.testing.assert_array_equal(found, array, strict=True)


@pytest.mark.parametrize("path", PICKED)
def test_a_slice_read_is_a_slice_of_the_whole(path, dit_leaves):
    leaf, rng = dit_leaves[path], np.random.default_rng(0)
    whole = leaf.read(())
    for _ in range(10):
        bounds = [sorted(rng.choice(length + 1, 2, replace=False)) for length in leaf.shape]
        index = tuple(slice(int(start), int(stop)) for start, stop in bounds)
        np.testing.assert_array_equal(leaf.read(index), whole[index], strict=True)
    np.testing.assert_array_equal(leaf.read((slice(1, None),)), whole[1:], strict=True)


def test_only_the_layers_asked_for_are_read(tiny_parts, tiny_files):
    read = []

    def watched(name, stored):
        return stored._replace(read=lambda index: read.append(name) or stored.read(index))

    files = TensorFiles({name: watched(name, stored) for name, stored in tiny_files["dit"].tensors.items()})
    leaf = leaves(tiny_parts["dit"], files, "the DiT")["blocks/q/kernel"]
    leaf.read((slice(1, 3),))
    assert read == ["blocks.1.self_attn.q.weight", "blocks.2.self_attn.q.weight"]


def structs(tree: dict, dtype) -> dict:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), tree)


def test_cast_while_loading(tiny_parts, tiny_files, dit_leaves):
    part = tiny_parts["dit"]
    loaded = load(part, tiny_files["dit"], structs(part.abstract, jnp.bfloat16), "the DiT")
    kernel = loaded["blocks"]["q"]["kernel"]
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {jnp.dtype("bfloat16")}
    expected = dit_leaves["blocks/q/kernel"].read(()).astype(jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(kernel), expected, strict=True)


EIGHT = """
import sys
import jax
import numpy as np
from itjax.configs.tiny import PRESET
from itjax.parallel import sharding
from itjax.parallel.sharding import make_mesh, with_shardings
from itjax.weights.load import leaves, load
from itjax.weights.official import open_official
from itjax.weights.specs import network_specs

sharding._SMALL = 2**12
files, part = open_official(*sys.argv[1:])["dit"], network_specs(PRESET.networks)["dit"]
mesh = make_mesh(heads=4)
loaded = load(part, files, with_shardings(part.abstract, mesh), "the DiT")
flat = {"/".join(k.key for k in path): leaf for path, leaf in jax.tree.leaves_with_path(loaded)}
expected = leaves(part, files, "the DiT")
assert flat.keys() == expected.keys()
split = 0
for path, array in flat.items():
    assert array.sharding.mesh.size == 8
    split += not array.sharding.is_fully_replicated
    np.testing.assert_array_equal(np.asarray(array), expected[path].read(()), err_msg=path, strict=True)
print(f"{split} of {len(flat)} split")
"""


def test_onto_eight_devices(tiny_official):
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", EIGHT, *map(str, tiny_official)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    split, _, total, _ = done.stdout.split()
    assert 0 < int(split) < int(total)  # kernels are, biases are not


def test_what_is_wrong_is_named(tiny_parts, tiny_files):
    tensors = dict(tiny_files["dit"].tensors)
    tensors["blocks.7.surplus"] = tensors.pop("head.head.weight")
    tensors["head.head.bias"] = tensors["head.modulation"]
    with pytest.raises(UserError) as error:
        load(tiny_parts["dit"], TensorFiles(tensors), {}, "a.safetensors")
    for part in (
        "a.safetensors",
        "1 missing: head.head.weight [64, 96]",
        "1 unexpected: blocks.7.surplus",
        "1 with a wrong shape: head.head.bias: expected [64], found [1, 2, 96]",
    ):
        assert part in str(error.value)


def test_a_checkpoint_of_other_networks_is_refused(tiny_parts, dit_leaves, tiny_files):
    """torch_view: arrays missing and of a wrong shape are named, those of other networks do not matter."""
    arrays = {f"dit/{path}": tiny_files["dit"].tensors["head.head.bias"] for path in dit_leaves}
    with pytest.raises(
        UserError, match=r"the checkpoint's dit does not contain(.|\n)*norm/bias: expected \[28\], found \[64\]"
    ):
        torch_view(tiny_parts["dit"], TensorFiles(arrays), "dit")
    other = TensorFiles({"vae/x": tiny_files["dit"].tensors["head.head.bias"]})
    with pytest.raises(UserError, match="73 missing: dit/audio_adapter/norm/bias"):
        torch_view(tiny_parts["dit"], other, "dit")
