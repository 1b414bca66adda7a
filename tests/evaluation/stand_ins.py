"""Small things in place of networks whose files cannot be had here, and films that they can see."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from itjax.evaluation import arcface, landmarks
from itjax.evaluation.landmarks import Landmarks


def save_network(path, batch="N", side=112, width=512):
    """A network of the shapes of ArcFace: means of 7x7 squares, times a random matrix."""
    columns = 3 * (side // 16) ** 2
    matrix = np.random.default_rng(0).normal(size=(columns, width)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["face"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["vector"]),
    ]
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [batch, width])],
        [numpy_helper.from_array(matrix, "matrix")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


class Discs:
    """A face mesh to which a disc that is bright in red is a face: its place and size wherever most of it is in the crop."""

    calls = 0

    def __call__(self, picture, head):
        self.calls += 1
        middle, side = np.array([head[0] + head[2], head[1] + head[3]]) / 2, landmarks.CROP_SCALE * (head[3] - head[1]) / 2
        left, top, right, bottom = (round(value) for value in (*(middle - side), *(middle + side)))
        height, width = picture.shape[:2]
        crop = picture[max(0, top) : max(0, min(height, bottom)), max(0, left) : max(0, min(width, right)), 0] > 128
        points = np.zeros((landmarks.POINTS, 3))
        if not crop.any():
            return Landmarks(points, 0.0)
        rows, columns = np.nonzero(crop)
        center = np.array([columns.mean() + max(0, left), rows.mean() + max(0, top)])
        half = np.sqrt(crop.sum() / np.pi)
        points[:, :2] = center
        points[landmarks.FOREHEAD, :2], points[landmarks.CHIN, :2] = center - (0, half), center + (0, half)
        points[landmarks.LEFT, :2], points[landmarks.RIGHT, :2] = center - (half, 0), center + (half, 0)
        for corners, side in ((arcface.LEFT_EYE, -1), (arcface.RIGHT_EYE, 1)):
            points[list(corners), :2] = center + np.array((0.4 * side, -0.3)) * half
        points[list(arcface.MOUTH_CORNERS), :2] = center + np.array([(-0.35, 0.5), (0.35, 0.5)]) * half
        fits = 0.4 < half / (0.5 * (bottom - top)) < 0.9
        return Landmarks(points, 0.9 if fits else 0.1)


def film(*paths, radius=9, size=(64, 128)):
    """White discs that move along paths of centres (x, y); None: hidden."""
    y, x = np.mgrid[: size[0], : size[1]]
    frames = np.zeros((len(paths[0]), *size, 3), np.uint8)
    for path in paths:
        for frame, place in zip(frames, path, strict=True):
            if place is not None:
                frame[np.hypot(x - place[0], y - place[1]) <= radius] = 255
    return frames


def path(x, y, frames=40):
    """A path of centres for `film`: to the right, and up and down."""
    return [(x + 0.5 * i, y + 4 * np.sin(i / 9)) for i in range(frames)]
