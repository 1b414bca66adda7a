import json
from fnmatch import fnmatch

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from itjax.config import ClipSizes
from itjax.models.clip import Clip
from itjax.weights import mapping
from itjax.weights.tables.clip import TABLE, unused

TINY = ClipSizes(width=40, layers=3, heads=2, mlp=160)
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


def shapes(sizes):
    return jax.eval_shape(lambda: Clip(sizes).init(jax.random.key(0), jnp.zeros((1, 224, 224, 3))))["params"]


@pytest.fixture(scope="module")
def tensors(recordings):
    file = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
    loaded = torch.load(recordings / "checkpoint" / "Wan2.1-I2V-14B-480P" / file, weights_only=True)
    return {name: tensor.numpy() for name, tensor in loaded.items()}


@pytest.fixture(scope="module")
def params(tensors):
    return mapping.to_jax(TABLE, shapes(TINY), tensors)


@pytest.fixture(scope="module")
def image(module_recording):
    """The recorded picture (-1..1) as the official code hands it to the tower. Its resizing is torch's own here."""
    picture = torch.tensor(module_recording("clip")["inputs.image"][:, :, 0])
    picture = torch.nn.functional.interpolate(picture, size=(224, 224), mode="bicubic", align_corners=False)
    return jnp.asarray(((picture.permute(0, 2, 3, 1) * 0.5 + 0.5 - MEAN) / STD).numpy())


def test_tokens_follow_the_recording(params, image, module_recording):
    ours = jax.jit(Clip(TINY).apply)({"params": params}, image)
    # float32 both, values up to 6; the order of sums differs
    chex.assert_trees_all_close(np.asarray(ours), module_recording("clip")["outputs.tokens"], atol=2e-5)


def test_full_size_is_the_published_network(recordings):
    published = json.loads((recordings / "full_size" / "clip_xlm_roberta_vit_h_14.json").read_text())
    patterns = unused(ClipSizes().layers)
    used = {name: tuple(s) for name, s in published.items() if not any(fnmatch(name, p) for p in patterns)}
    assert mapping.torch_shapes(TABLE, shapes(ClipSizes())) == used
    # each pattern is there for something, and the block that is not applied is the last one
    assert all(any(fnmatch(name, p) for name in published) for p in patterns)
    assert sum(name.startswith("visual.transformer.31.") for name in published) == 12


def test_to_torch_and_back_is_the_identity(params, tensors):
    back = dict(mapping.to_torch(TABLE, params))
    assert all(any(fnmatch(name, p) for p in unused(TINY.layers)) for name in set(tensors) - set(back))
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, tensors[name])
    chex.assert_trees_all_equal(mapping.to_jax(TABLE, shapes(TINY), back), params)


def test_bfloat16_stays_near(params, image):
    exact = jax.jit(Clip(TINY).apply)({"params": params}, image)
    rough = jax.jit(Clip(TINY, jnp.bfloat16).apply)({"params": params}, image)
    assert rough.dtype == jnp.bfloat16
    error = jnp.linalg.norm(rough.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
    assert error < 0.03  # bfloat16 keeps 8 bits: 4e-3 an operation
