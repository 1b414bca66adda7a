"""The mesh refuses what does not fit it, and parameters lie split over it."""

from argparse import Namespace
from functools import partial

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

from itjax.commands import infer
from itjax.errors import UserError
from itjax.parallel.sharding import AXES, make_mesh, parameter_spec, with_shardings


def test_mesh_fits_the_heads():
    devices = jax.devices() * 8  # a mesh is only names and counts here
    assert make_mesh(heads=40, devices=devices).shape == {"data": 1, "context": 1, "ulysses": 8}
    assert make_mesh(heads=4, devices=devices).shape == {"data": 1, "context": 2, "ulysses": 4}
    assert make_mesh(2, heads=4, devices=devices).shape == {"data": 1, "context": 4, "ulysses": 2}
    for ulysses, context, heads in ((3, 0, 40), (8, 2, 40), (16, 0, 16)):
        with pytest.raises(UserError):
            make_mesh(ulysses, context, heads=heads, devices=devices)


def test_parameters_lie_along_their_output_features():
    mesh = make_mesh(heads=40, devices=jax.devices() * 8)
    spec = lambda shape, *names: parameter_spec(tuple(map(jax.tree_util.DictKey, names)), shape, mesh)
    assert spec((40, 5120, 13824), "blocks", "ffn_in", "kernel") == P(None, None, AXES)
    assert spec((320, 5121), "head", "kernel") == P(AXES, None)
    assert spec((40, 96), "head", "kernel") == P()
    # vectors of 40 layers together are not small, but each is; and layers are never split
    assert spec((40, 5120), "blocks", "ffn_out", "bias") == spec((40, 6, 5120), "blocks", "modulation") == P()
    assert spec((40, 255, 129), "blocks", "q", "kernel") == P()


def test_an_optimizer_keeps_its_moments_where_the_parameters_are():
    mesh = make_mesh(heads=40, devices=jax.devices() * 8)
    tree = {"blocks": {"q": {"kernel": jnp.zeros((2, 256, 256)), "bias": jnp.zeros((2, 2**14))}}}
    moments = with_shardings(jax.eval_shape(optax.adam(0.1).init, tree), mesh)[0].mu["blocks"]["q"]
    assert moments["kernel"].sharding.spec == P(None, None, AXES) and moments["bias"].sharding.spec == P()


def test_a_video_leaves_no_device_to_the_batch(monkeypatch):
    """Its guidance branches are two or three: a mesh with a part for data would not divide them."""
    monkeypatch.setattr(infer, "make_mesh", partial(make_mesh, devices=jax.devices()[:1] * 8))
    with pytest.warns(UserWarning, match="leaves devices idle"):
        mesh = infer.mesh_of(Namespace(ulysses_size=2, ring_size=1), heads=4)
    assert mesh.shape == {"data": 1, "context": 2, "ulysses": 4}
