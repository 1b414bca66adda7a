"""Calls a Linen network as a pure function of its parameters."""

from typing import Any

import flax.linen as nn


def apply(net: nn.Module, parameters: dict, *args: Any, method: str | None = None) -> Any:
    """Applies `net` (or its method `method`) to `args`, without mutable state."""
    return net.apply({"params": parameters}, *args, method=method)
