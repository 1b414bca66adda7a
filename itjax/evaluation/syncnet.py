"""SyncNet v2 (Chung and Zisserman 2016; the network S of github.com/joonson/syncnet_python): lips and sound as vectors.

Its weights, `syncnet_v2.model`, are not shipped here.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from itjax.evaluation.batches import in_batches
from itjax.evaluation.torch_networks import Names, Unit, apply, max_pool, read_weights, units
from itjax.weights.mapping import Shape

# N windows of 5 frames (0.2 s) · F frames at 25 a second · T MFCC frames at 100 a second

WHAT = "SyncNet v2 (syncnet_v2.model)"
SIDE = 224  # pixels of a face crop
WINDOW = 5  # frames
MFCC_PER_FRAME, MFCC_WINDOW, COEFFICIENTS = 4, 20, 13
WIDTH = 1024
BATCH = 16  # windows at a time
EPSILON = 1e-5  # of the batch norm, torch's default


def lips(unit: Unit, frames: Float[Array, "1 F 224 224 3"]) -> Float[Array, "N 1024"]:
    """A vector for each 5 consecutive frames (N = F-4). Pixels 0..255 in the order blue, green, red.

    Only the first convolution spans more than one frame, so windows that overlap are computed as one sequence.
    """
    layer = partial(_relu_unit, unit, "netcnnlip")
    x = max_pool(layer(0, frames, 96, (5, 7, 7), (1, 2, 2)), (1, 3, 3), (1, 2, 2))
    x = max_pool(layer(4, x, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1)), (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for index in (8, 11, 14):
        x = layer(index, x, 256, (1, 3, 3), padding=(0, 1, 1))
    x = layer(18, max_pool(x, (1, 3, 3), (1, 2, 2)), 512, (1, 6, 6))
    return _head(unit, "netfclip", x.reshape(-1, 512))


def sound(unit: Unit, mfcc: Float[Array, "N 13 20 1"]) -> Float[Array, "N 1024"]:
    """A vector for each 0.2 s of sound: 13 coefficients of 20 MFCC frames."""
    layer = partial(_relu_unit, unit, "netcnnaud")
    x = layer(0, mfcc, 64, (3, 3), padding=(1, 1))
    x = max_pool(layer(4, x, 192, (3, 3), padding=(1, 1)), (3, 3), (1, 2))
    x = layer(8, x, 384, (3, 3), padding=(1, 1))
    for index in (11, 14):
        x = layer(index, x, 256, (3, 3), padding=(1, 1))
    x = layer(18, max_pool(x, (3, 3), (2, 2)), 512, (5, 4))
    return _head(unit, "netfcaud", x.reshape(-1, 512))


def _relu_unit(
    unit: Unit, part: str, index: int, x: Array, width: int, kernel: Shape = (), stride: Shape = (), padding: Shape = ()
) -> Array:  # fmt: skip
    """Layer `index` of the part, whose batch norm is the next layer."""
    return jax.nn.relu(unit(x, Names(f"{part}.{index}", f"{part}.{index + 1}"), width, kernel, stride, padding))


def _head(unit: Unit, part: str, x: Float[Array, "N 512"]) -> Float[Array, "N 1024"]:
    return unit(_relu_unit(unit, part, 0, x, 512), Names(f"{part}.3", None), WIDTH)


class SyncNet:
    """SyncNet with the weights in the file `path`.

    Raises:
        UserError: If the file is missing, would run code, or holds another network.
    """

    def __init__(self, path: Path):
        frames = jax.ShapeDtypeStruct((1, BATCH + WINDOW - 1, SIDE, SIDE, 3), np.float32)
        mfcc = jax.ShapeDtypeStruct((BATCH, COEFFICIENTS, MFCC_WINDOW, 1), np.float32)
        self._weights = read_weights(path, WHAT, units(lips, frames) | units(sound, mfcc), EPSILON)
        self._lips = jax.jit(partial(apply, lips))
        self._sound = jax.jit(partial(apply, sound))

    def lips(self, faces: UInt8[np.ndarray, "F 224 224 3"]) -> Float32[np.ndarray, "N 1024"]:
        """A vector for each 5 consecutive frames of a face (red, green, blue)."""
        count = len(faces) - WINDOW + 1
        found = []
        for start in range(0, count, BATCH):
            frames = faces[start : start + BATCH + WINDOW - 1]
            full = np.pad(frames, ((0, BATCH + WINDOW - 1 - len(frames)), (0, 0), (0, 0), (0, 0)))
            found.append(np.asarray(self._lips(self._weights, full[None, ..., ::-1].astype(np.float32))))
        return np.concatenate(found)[:count]

    def sound(self, mfcc: Float[np.ndarray, "T 13"], count: int) -> Float32[np.ndarray, "N 1024"]:
        """A vector for the sound of each of the first `count` windows of 5 frames."""
        starts = range(0, MFCC_PER_FRAME * count, MFCC_PER_FRAME)
        windows = [mfcc[start : start + MFCC_WINDOW].T[..., None].astype(np.float32) for start in starts]
        return in_batches(lambda batch: self._sound(self._weights, jnp.asarray(batch)), windows, BATCH)
