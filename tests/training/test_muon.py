"""Muon's updates of stacked matrices: each layer's own, however many are computed together."""

import functools

import jax
import numpy as np
import pytest

from itjax.training import muon


@pytest.mark.parametrize("at_once", [1, 100, 2**23])  # one, two (and one that is left), all of them
def test_matrices_that_are_computed_together_are_orthogonalised_each_alone(monkeypatch, at_once):
    stack = jax.random.normal(jax.random.key(0), (5, 6, 8))
    alone = [np.asarray(muon.orthogonalised(matrix[None])[0]) for matrix in stack]
    monkeypatch.setattr(muon, "AT_ONCE", at_once)
    together = np.asarray(muon.orthogonalised(stack))
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)  # float32, in another order
    found = np.linalg.svd(together / (muon.RMS * np.sqrt(8)), compute_uv=False)
    assert (found > 0.6).all() and (found < 1.3).all()  # where Newton and Schulz's five steps leave them


def test_small_matrices_are_multiplied_together_and_large_ones_in_turn(monkeypatch):
    stack = jax.random.normal(jax.random.key(0), (5, 6, 8))
    program = lambda: jax.jit(functools.partial(muon.orthogonalised)).lower(stack).as_text()  # traced anew each time
    assert "tensor<5x1x6x6xf32>" in program()
    monkeypatch.setattr(muon, "AT_ONCE", 6 * 8)
    assert "tensor<5x1x6x6xf32>" not in program() and "tensor<1x1x6x6xf32>" in program()
