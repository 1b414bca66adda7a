"""Faces as vectors by an ArcFace network (an ONNX file that the user names), aligned as insightface aligns them."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from itjax.errors import UserError
from itjax.evaluation.batches import in_batches

# F frames · N faces · D features · H W pixels

SIDE = 112  # of the network's input, in pixels
BATCH = 16  # faces at a time, where the network does not fix it
# Where both eyes, the tip of the nose, and the corners of the mouth belong in the input (x, y), from left to right
TEMPLATE = np.array([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)])
# The same points among the 468 of the face mesh; an eye is the middle of its corners
LEFT_EYE, RIGHT_EYE, NOSE, MOUTH_CORNERS = (33, 133), (362, 263), 4, (61, 291)


def five_points(mesh: Float[np.ndarray, "468 3"]) -> Float[np.ndarray, "5 2"]:
    """Eyes, tip of the nose and corners of the mouth, in pixels."""
    eyes = [mesh[list(corners), :2].mean(0) for corners in (LEFT_EYE, RIGHT_EYE)]
    return np.stack([*eyes, mesh[NOSE, :2], *mesh[list(MOUTH_CORNERS), :2]])


def similarity(points: Float[np.ndarray, "P 2"], target: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "2 3"]:
    """Rotation, scale and shift that move `points` closest to `target` (least squares; Umeyama 1991), without reflection."""
    centers = points.mean(0), target.mean(0)
    a, b = points - centers[0], target - centers[1]
    u, stretch, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    turn = (u * signs) @ vt * (stretch @ signs / max(np.sum(a**2), 1e-12))
    return np.column_stack([turn, centers[1] - turn @ centers[0]])


def align(picture: UInt8[np.ndarray, "H W 3"], points: Float[np.ndarray, "5 2"]) -> UInt8[np.ndarray, "112 112 3"]:
    """The face at the template's position; black outside the picture."""
    return np.asarray(cv2.warpAffine(picture, similarity(points, TEMPLATE), (SIDE, SIDE), borderValue=(0, 0, 0)), np.uint8)


class ArcFace:
    """The network in the ONNX file `path`, such as w600k_r50.onnx or glintr100.onnx of insightface, on the CPU.

    Raises:
        UserError: If onnxruntime or the file is missing, or the file holds another kind of network.
    """

    def __init__(self, path: Path):
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError('CSIM needs onnxruntime: pip install "itjax[metrics]"') from error
        if not path.is_file():
            raise UserError(f"{path}: no such file. It should be an ArcFace network, such as w600k_r50.onnx of insightface.")
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class of its own for each kind of damage
            raise UserError(f"{path} is not an ONNX network that can be loaded: {str(error)[:200]}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shapes = [list(each.shape) for each in inputs], [list(each.shape) for each in outputs]
        if not (len(inputs) == len(outputs) == 1 and _is_face_network(*shapes[0], *shapes[1])):
            raise UserError(
                f"{path} has inputs {shapes[0]} and outputs {shapes[1]}; an ArcFace network has one input "
                "[N, 3, 112, 112] and one output [N, 512]"
            )
        self.name, self.width = path.stem, outputs[0].shape[1]
        self._input = inputs[0].name
        fixed = inputs[0].shape[0]
        self._batch = fixed if isinstance(fixed, int) and fixed > 0 else BATCH

    def __call__(self, faces: UInt8[np.ndarray, "N 112 112 3"]) -> Float32[np.ndarray, "N D"]:
        """Unit vectors of aligned faces (red, green, blue)."""

        def vectors(batch: UInt8[np.ndarray, "batch 112 112 3"]) -> Float32[np.ndarray, "batch D"]:
            pixels = (batch.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
            return self._session.run(None, {self._input: pixels})[0]

        found = in_batches(vectors, faces, self._batch)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def _is_face_network(given: list, found: list) -> bool:
    return given[1:] == [3, SIDE, SIDE] and len(found) == 2 and found[1] == 512


def embeddings(
    net: ArcFace, frames: UInt8[np.ndarray, "F H W 3"], points: Float[np.ndarray, "F 5 2"]
) -> Float32[np.ndarray, "F D"]:  # fmt: skip
    """A unit vector for the face in each frame; NaN where its five `points` are NaN: no face was found."""
    found = np.isfinite(points).all((1, 2))
    result = np.full((len(frames), net.width), np.nan, np.float32)
    if found.any():
        result[found] = net(np.stack([align(frames[i], points[i]) for i in np.flatnonzero(found)]))
    return result
