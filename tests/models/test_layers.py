"""Layers that take parameters as they are given."""

import importlib
import inspect
import pkgutil

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import ScopeParamNotFoundError

import itjax.models
from itjax.models import layers

X = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype(np.float32)
MADE = {
    "Dense": (X, {"features": 3}),
    "Conv": (X, {"features": 3, "kernel_size": (3, 3)}),
    "Embed": (np.arange(4), {"num_embeddings": 7, "features": 3}),
    "LayerNorm": (X, {}),
    "RMSNorm": (X, {}),
}


@pytest.mark.parametrize("name", MADE)
def test_they_are_flax_s(name):
    given, asked = MADE[name]
    ours, theirs = getattr(layers, name)(**asked), getattr(nn, name)(**asked)
    parameters = ours.init(jax.random.key(0), given)
    chex.assert_trees_all_equal(parameters, theirs.init(jax.random.key(0), given))
    moved = jax.tree.map(lambda leaf: leaf + 0.5, parameters)
    chex.assert_trees_all_equal(ours.apply(moved, given), theirs.apply(moved, given))


def test_the_initializer_of_a_parameter_that_is_given_is_not_traced():
    calls = []

    def initial(key, shape, dtype=jnp.float32):
        calls.append(shape)
        return jnp.ones(shape, dtype)

    for layer in (layers.Dense, nn.Dense):
        network = layer(3, kernel_init=initial)
        parameters = network.init(jax.random.key(0), X)
        assert calls.pop() == (4, 3) and not calls
        network.apply(parameters, X)
        assert len(calls) == (layer is nn.Dense)  # once Flax does so no more, these layers are not needed


def test_a_parameter_that_is_missing_is_named():
    with pytest.raises(ScopeParamNotFoundError, match="bias"):
        layers.Dense(3).apply({"params": {"kernel": np.ones((4, 3))}}, X)


def test_all_networks_are_made_of_them():
    modules = [importlib.import_module(info.name) for info in pkgutil.iter_modules(itjax.models.__path__, "itjax.models.")]
    made = {
        each for module in modules for _, each in inspect.getmembers(module, inspect.isclass) if issubclass(each, nn.Module)
    }
    assert len(made) > 25
    assert {each for each in made if not issubclass(each, layers.Module)} == set()
    sources = "".join(inspect.getsource(module) for module in modules if module is not layers)
    assert not [name for name in MADE if f"nn.{name}(" in sources]
