"""Initial parameters of a small VAE: a chain of down- and upsampling that carries the colours of a picture.

With Flax's initialisers throughout, a small VAE does not even learn the background's colour in 1,400 steps. Here all
residual branches are zero at first, so that the network is a chain of convolutions, and these copy: the means of 2x2 pixels
and of two frames on the way down, repetition on the way up. Older frames have no weight at first, so that what is learned
from single pictures holds for videos.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float

from itjax.config import VaeSizes
from itjax.errors import UserError
from itjax.models.vae import abstract_parameters
from itjax.preset_json import sizes_from_json
from itjax.training.stored import checkpoint_in, sizes_in
from itjax.weights import store
from itjax.weights.identity import digest_of

# The norms before the last convolutions divide by a position's length: the colours survive that because there are constants
# beside them, and the SiLU because silu(c) - silu(-c) = c.
COLORS, CONSTANTS = 6, 2  # channels: red, green, blue, -red, -green, -blue; constants
CHAIN = COLORS + CONSTANTS
CONSTANT = 2.0
LOG_VARIANCE = -6.0  # of the latents at first: hardly any noise
FEATURES = 0.3  # scale of the initial random features beside the colours


class Stored(NamedTuple):
    """A trained VAE: float32 parameters {"encoder", "decoder"}, and what tells these weights from others."""

    sizes: VaeSizes
    parameters: dict
    identity: str


Kernel = Float[np.ndarray, "*taps i o"]


def stored_parameters(folder: Path) -> Stored:
    """Reads the VAE of a run of this trainer, or of a checkpoint.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    checkpoint = checkpoint_in(folder, "vae")
    try:
        sizes = sizes_from_json(VaeSizes, sizes_in(checkpoint)["vae"], "vae")
    except ValueError as error:
        raise UserError(f"{checkpoint / store.SIZES_FILE}: {error}. {store.RECOVERY_HINT.capitalize()}.") from error
    parameters = store.restore(checkpoint, {"vae": abstract_parameters(sizes)})["vae"]
    return Stored(sizes, parameters, digest_of(checkpoint))


def initial_parameters(sizes: VaeSizes, seed: int) -> dict:
    """Parameters {"encoder", "decoder"} of a VAE, float32.

    Raises:
        ValueError: If `dim` or `z_dim` are too small for the chain.
    """
    if sizes.dim < CHAIN or sizes.z_dim < COLORS // 2:
        raise ValueError(f"dim {sizes.dim} and z_dim {sizes.z_dim} must be at least {CHAIN} and {COLORS // 2}")
    rng = np.random.default_rng(seed)
    shapes = flatten_dict(abstract_parameters(sizes))
    return unflatten_dict({path: jnp.asarray(_made(rng, path, leaf.shape, sizes)) for path, leaf in shapes.items()})


def _made(rng: np.random.Generator, path: tuple[str, ...], shape: tuple[int, ...], sizes: VaeSizes) -> np.ndarray:
    """The initial value of the parameter at `path`. Without any program to compile, as Flax's initialisation would need."""
    network, names, leaf = path[0], path[1:-1], path[-1]
    if leaf == "gamma":
        return np.ones(shape, np.float32)
    at = ".".join([network, *names])
    if leaf == "bias":
        return _bias(at, np.zeros(shape, np.float32), sizes)
    value = np.asarray(rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape), np.float32)
    if names[-1] == "proj" or "conv2" in names:  # the last convolutions of residual branches
        return np.zeros_like(value)
    if value.ndim == 5 and value.shape[0] == 3:
        value[:-1] = 0  # older frames
    for ending, make in _COPIES.items():
        if at.endswith(ending):
            return make(value)
    return value


def _bias(at: str, value: np.ndarray, sizes: VaeSizes) -> np.ndarray:
    if at in ("encoder.conv_in.conv", "decoder.conv_in.conv"):
        value[COLORS:CHAIN] = CONSTANT
    if at == "encoder.to_moments":
        value[sizes.z_dim :] = LOG_VARIANCE
    return value


def _center(kernel: Kernel) -> np.ndarray:
    """A view of the newest frame's middle pixel [i, o]."""
    return kernel[tuple([-1, *(size // 2 for size in kernel.shape[1:-2])] if kernel.ndim == 5 else [])]


def _signed(inputs: int, outputs: int) -> np.ndarray:
    """Channels 0, 1, 2 to colours and their negatives."""
    both = np.zeros((inputs, outputs), np.float32)
    both[:3, : COLORS // 2], both[:3, COLORS // 2 : COLORS] = np.eye(3), -np.eye(3)
    return both


def _from_three(kernel: Kernel) -> Kernel:
    """The first convolutions: channels 0 to 2 to the chain; random features in the other channels."""
    made = kernel * FEATURES
    made[..., :CHAIN] = 0
    _center(made)[:, :CHAIN] = _signed(*kernel.shape[-2:])[:, :CHAIN]
    return made


def _to_three(kernel: Kernel) -> Kernel:
    """The last convolutions: the chain to channels 0 to 2; random features to the others.

    The norm before makes a channel's mean square 1: in the chain that is the constants' share of all channels.
    """
    made = kernel * FEATURES
    made[..., :3] = 0
    _center(made)[:COLORS, :3] = _signed(3, COLORS).T * CONSTANT / 2
    return made


def _first_channels(kernel: Kernel) -> Kernel:
    """Channels are copied as far as there are as many; random features in those beyond."""
    made = kernel.copy()
    kept = min(kernel.shape[-2:])
    made[..., :kept] = 0
    _center(made)[:, :kept] = np.eye(kernel.shape[-2], kept)
    return made


def _mean_of_squares(kernel: Kernel) -> Kernel:
    """Each channel's mean over 2x2 pixels."""
    made = np.zeros_like(kernel)
    made[:2, :2] = np.eye(kernel.shape[-1]) / 4
    return made


def _middle_pixel(kernel: Kernel) -> Kernel:
    """The first half of the channels, unchanged."""
    made = np.zeros_like(kernel)
    made[1, 1] = np.eye(*kernel.shape[-2:])
    return made


def _mean_of_frames(kernel: Kernel) -> Kernel:
    """Each channel's mean over the two newest frames."""
    made = np.zeros_like(kernel)
    made[1:] = np.eye(kernel.shape[-1]) / 2
    return made


def _repeated_frame(kernel: Kernel) -> Kernel:
    """The newest frame twice."""
    made = np.zeros_like(kernel)
    made[-1] = np.tile(np.eye(kernel.shape[-2]), (1, 1, 1, 2))
    return made


def _same(kernel: Kernel) -> Kernel:
    return np.eye(*kernel.shape[-2:], dtype=np.float32).reshape(kernel.shape)


_COPIES: dict[str, Callable[[Any], Any]] = {
    "conv_in.conv": _from_three,
    "conv_out.conv": _to_three,
    "shortcut": _first_channels,
    "down.conv": _mean_of_squares,
    "up.conv": _middle_pixel,
    "down.time_conv": _mean_of_frames,
    "up.time_conv": _repeated_frame,
    "to_moments": _same,
    "from_latent": _same,
}
