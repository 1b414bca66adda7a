"""How a Linen network is called as a pure function of its parameters."""

from typing import Any

import flax.linen as nn


def apply(net: nn.Module, parameters: dict, *args: Any, method: str | None = None) -> Any:
    """`net` (or one of its methods) on `args`; keeps no state."""
    return net.apply({"params": parameters}, *args, method=method)
