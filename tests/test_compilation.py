"""Programs for few calls: compiled quickly on CPU, and as all others elsewhere."""

import jax
import jax.numpy as jnp
import pytest

from itjax import compilation


@pytest.mark.parametrize(("backend", "options"), [("cpu", compilation.QUICK), ("gpu", None), ("tpu", None)])
def test_only_on_cpu_it_is_compiled_quickly(backend, options, monkeypatch):
    given = []
    jit = jax.jit
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "jit", lambda function, **chosen: given.append(chosen) or jit(function, static_argnums=1))
    repeat = compilation.JitForFewCalls(jnp.tile, static_argnums=1)
    assert not given  # nobody has asked for the backend yet
    for _ in range(2):
        assert repeat(jnp.asarray([1, 2]), 2).tolist() == [1, 2, 1, 2]
    assert given == [{"compiler_options": options, "static_argnums": 1}]


def test_this_compiler_knows_the_options():
    assert compilation.JitForFewCalls(lambda x: x + 1)(jnp.asarray(1)) == 2
