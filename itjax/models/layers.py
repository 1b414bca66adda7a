"""Flax's layers, which take the parameters that they are given without working out what they would have been initialised to.

Flax traces a parameter's initializer at each call of a network, to compare shapes; that was a third of the time in which the
programs of a video are traced. Here the shapes of all parameters are compared once, where weights are opened
(`itjax.weights`).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp


class Module(nn.Module):
    """The base of all networks and layers."""

    @nn.nowrap
    def param(self, name: str, init_fn: Callable[..., Any], *init_args: Any, **init_kwargs: Any) -> Any:
        """The parameter as it is given; what `init_fn` makes of a key and `init_args` if there is none yet, as in `init`."""
        if self.has_variable("params", name):
            return self.get_variable("params", name)
        return super().param(name, init_fn, *init_args, **init_kwargs)


class Dense(Module, nn.Dense):
    """`flax.linen.Dense`."""


class Conv(Module, nn.Conv):
    """`flax.linen.Conv`."""


class Embed(Module, nn.Embed):
    """`flax.linen.Embed`."""


class LayerNorm(Module, nn.LayerNorm):
    """`flax.linen.LayerNorm`."""


class RMSNorm(Module, nn.RMSNorm):
    """`flax.linen.RMSNorm`."""


def layer_norm(name: str) -> LayerNorm:
    """LayerNorm with epsilon 1e-5, in float32; the variance is computed as E[(x - E[x])²], not as E[x²] - E[x]²."""
    return LayerNorm(epsilon=1e-5, dtype=jnp.float32, use_fast_variance=False, name=name)
