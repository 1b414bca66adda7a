"""A drawn person in all frames of a clip: the polygons from back to front, and where the parts of the face are."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from itjax.synthetic.face.body import draw_body
from itjax.synthetic.face.eyes import EYE_DEPTH, EYE_HEIGHT, draw_eyes, draw_temples
from itjax.synthetic.face.hair import draw_hair, draw_hair_behind
from itjax.synthetic.face.head import draw_beard, draw_ears, draw_face, draw_nose
from itjax.synthetic.face.identity import Identity, Look, Pose
from itjax.synthetic.face.lips import MAX_GAP, MOUTH_POSITION, draw_mouth
from itjax.synthetic.face.pen import Layer, Pen, Polygon, column, layers, oval, xyz
from itjax.synthetic.mouth import Mouth, Track

JAW_DROP = 0.10  # how far the chin moves down when the mouth opens


class FacePositions(NamedTuple):
    """Positions in the picture in pixels, of one frame or one row per frame; boxes are (left, top, right, bottom).

    Corners (`left`, `right`) and inner lips (`top`, `bottom`) of the mouth; `mouth_box`: its box including the lips;
    `mouth_area`: the box of all possible mouths at this head pose; eyes, chin; the head's box; the middles of the brows.
    """

    left: Track
    right: Track
    top: Track
    bottom: Track
    mouth_box: Track
    mouth_area: Track
    left_eye: Track
    right_eye: Track
    chin: Track
    head_box: Track
    left_brow: Track
    right_brow: Track


def person_layers(
    who: Identity, pose: Pose, mouth: Mouth, look: Look, light: float, scale: Float[np.ndarray, " F"],
    origin: Float[np.ndarray, "F 2"], fine: bool = True,
) -> tuple[list[Layer], FacePositions]:  # fmt: skip
    """The layers of a person in all frames. World point (x, y) is at pixel `scale` * (x, y) + `origin`.

    `light`: the side from which it comes, -1 left, 1 right. `fine`: with all steps of the shading.
    """
    polygons: list[Polygon] = []
    pen = Pen(polygons, pose, scale, origin, fine)
    # the shoulders follow the head's rotation only slightly
    body = Pen(
        polygons, pose._replace(yaw=0.3 * pose.yaw, pitch=0.0 * pose.pitch, roll=0.2 * pose.roll), scale, origin, fine
    )
    drop = JAW_DROP * mouth.jaw
    draw_hair_behind(pen, who)
    draw_body(body, who, drop, light)
    draw_ears(pen, who)
    draw_face(pen, who, drop, light)
    if who.glasses:
        draw_temples(pen, who)
    draw_hair(pen, who, light)
    if who.beard:
        draw_beard(pen, who, drop)
    draw_nose(pen, who, light)
    brows = draw_eyes(pen, who, look, light)
    lips = draw_mouth(pen, who, mouth, look.smile)
    return layers(polygons), _positions(pen, who, lips, brows, drop)


def _positions(
    pen: Pen, who: Identity, lips: Float[np.ndarray, "F 4 3"], brows: Float[np.ndarray, "F 2 3"], drop: Track
) -> FacePositions:
    x, y, z = MOUTH_POSITION
    around = pen.at(lips + np.array([[-0.03, 0, 0], [0.03, 0, 0], [0, -0.10, 0], [0, 0.12, 0]]))
    area = pen.at(oval(x, y + MAX_GAP / 2, z, 1.2 * who.mouth, MAX_GAP / 2 + 0.12))
    eyes = pen.at(xyz(np.array([-1, 1]) * who.eye_distance, EYE_HEIGHT, EYE_DEPTH))
    chin = pen.at(xyz(0.0, 1 + column(drop), 0.0))
    head = pen.at(oval(0.0, 0.0, 0.0, who.width, 1.0))
    box = lambda points: np.concatenate([points.min(1), points.max(1)], axis=-1)
    left, right, top, bottom = pen.at(lips).swapaxes(0, 1)
    left_eye, right_eye = eyes.swapaxes(0, 1)
    left_brow, right_brow = pen.at(brows).swapaxes(0, 1)
    return FacePositions(
        left, right, top, bottom, box(around), box(area), left_eye, right_eye, chin[:, 0], box(head), left_brow, right_brow
    )  # fmt: skip
