"""Initial parameters of a DiT that is trained from nothing."""

import jax.numpy as jnp
from jaxtyping import Array

from itjax.config import DiTSizes
from itjax.models import dit
from itjax.training.parameters import flat, nested

BRANCHES = ("o", "cross_o", "audio_o", "ffn_out")  # the last layers of the residual branches of a block


def initial_parameters(sizes: DiTSizes, key: Array) -> dict:
    """Random parameters, float32, with which the network predicts zero at first.

    The head is zero (DiT, arXiv 2212.09748, section 3.2), and the branches are small, the more blocks there are: else the
    residual stream, to which text and audio attention are added without a gate, grows with the number of blocks.
    """
    leaves = flat(dit.init(sizes, key))
    leaves["head/kernel"] = jnp.zeros_like(leaves["head/kernel"])
    for name in BRANCHES:
        leaves[f"blocks/{name}/kernel"] *= (4 * sizes.num_layers) ** -0.5
    return nested(leaves)
