"""Lips and head pose in a picture, from MediaPipe's face mesh: a detector independent of the drawn faces' ground truth.

Its network (face_landmark.tflite, 1.2 MB, Apache-2.0) is part of the mediapipe 0.10.14 wheel and is not shipped here.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from itjax.errors import UserError

# H W pixels

INPUT_SIZE = 192  # side of the network's input in pixels
POINTS = 468
UPPER_LIP, LOWER_LIP, FOREHEAD, CHIN, LEFT, RIGHT = 13, 14, 10, 152, 234, 454
CROP_SCALE = 1.5  # side of the crop relative to the head's height


class Landmarks(NamedTuple):
    """468 points of a face in picture pixels (x, y, and z in the same unit), and the confidence that it is a face (0..1)."""

    points: Float[np.ndarray, "468 3"]
    score: float

    @property
    def opening(self) -> float:
        """Distance between the inner lips relative to the height of the face."""
        gap = np.linalg.norm(self.points[UPPER_LIP, :2] - self.points[LOWER_LIP, :2])
        return float(gap) / max(float(np.linalg.norm(self.points[FOREHEAD, :2] - self.points[CHIN, :2])), 1e-9)

    @property
    def pose(self) -> tuple[float, float, float]:
        """Yaw, pitch and roll in radians of the plane through the sides of the face, the forehead and the chin."""
        across = self.points[RIGHT] - self.points[LEFT]
        down = self.points[CHIN] - self.points[FOREHEAD]
        yaw, roll = np.arctan2(across[2], across[0]), np.arctan2(across[1], across[0])
        return float(yaw), float(np.arctan2(down[2], down[1])), float(roll)


class Detector:
    """Finds landmarks with the network in the file `path`.

    Raises:
        UserError: If the file or the library that runs it is missing, or the file holds a different network.
    """

    def __init__(self, path: Path):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise UserError('landmark detection needs ai-edge-litert: pip install "itjax[evaluation]"') from error
        if not path.is_file():
            raise UserError(f"{path}: no such file. face_landmark.tflite is part of the mediapipe 0.10.14 wheel.")
        try:
            self._run = Interpreter(str(path))
            self._run.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{path} is not a TFLite model that can be loaded: {error}") from error
        outputs = {int(np.prod(output["shape"])): output["index"] for output in self._run.get_output_details()}
        if not {1, 3 * POINTS} <= outputs.keys():
            raise UserError(
                f"{path} has outputs of sizes {sorted(outputs)}; the face mesh has outputs of sizes 1 and {3 * POINTS}"
            )
        self._input, self._score, self._points = self._run.get_input_details()[0]["index"], outputs[1], outputs[3 * POINTS]

    def __call__(self, picture: UInt8[np.ndarray, "H W 3"], head: tuple[float, float, float, float]) -> Landmarks:
        """Finds the landmarks of the face in `head`.

        `head`: (left, top, right, bottom) in pixels; the position in the previous frame is accurate enough.
        """
        left, top, right, bottom = head
        scale = INPUT_SIZE / (CROP_SCALE * (bottom - top))
        corner = np.array([(left + right) / 2, (top + bottom) / 2]) - INPUT_SIZE / 2 / scale
        affine = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
        crop = cv2.warpAffine(
            picture, affine, (INPUT_SIZE, INPUT_SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        self._run.set_tensor(self._input, crop[None].astype(np.float32) / 255)
        self._run.invoke()
        points = self._run.get_tensor(self._points).reshape(POINTS, 3).astype(np.float64) / scale
        points[:, :2] += corner
        score = float(self._run.get_tensor(self._score).ravel()[0])
        return Landmarks(points, float(1 / (1 + np.exp(-score))))
