"""The mouth of a drawn person: lips, teeth, tongue."""

import numpy as np
from jaxtyping import Float

from itjax.synthetic.face.identity import Identity, darken
from itjax.synthetic.face.pen import Pen, between, column, xyz
from itjax.synthetic.mouth import Mouth, Track

MOUTH_POSITION = (0.0, 0.50, 0.80)
MAX_GAP = 0.34  # largest distance between the lips
DEEP, TONGUE, TEETH = (70, 22, 28), (158, 60, 86), (246, 244, 236)
BETWEEN_LIPS = (DEEP, TONGUE, TEETH)
ACROSS = np.linspace(-1, 1, 17)


def draw_mouth(pen: Pen, who: Identity, mouth: Mouth, smile: Track) -> Float[np.ndarray, "F 4 3"]:
    """Draws the mouth; returns its corners (left, right) and inner lips (top, bottom)."""
    x, y, z = MOUTH_POSITION
    jaw, rounding, smile = column(mouth.jaw), column(mouth.rounding), column(smile)
    half = who.mouth * (0.82 + 0.36 * column(mouth.width) - 0.38 * rounding + 0.15 * smile)
    depth = z + 0.08 * rounding
    gap = MAX_GAP * jaw
    arch = np.sqrt(1 - ACROSS**2)  # 0 at the corners
    # a smile raises the corners, an open jaw slightly raises the upper lip
    lift = -0.09 * smile * ACROSS**2 - 0.035 * jaw * arch
    upper, lower = y + lift, y + lift + gap * arch
    thick = 0.075 + 0.02 * rounding
    bow = thick * arch * (1 - 0.25 * np.exp(-((ACROSS / 0.18) ** 2)))
    wide, across = half * 1.06 * ACROSS + x, half * 0.94 * ACROSS + x
    pen.fill(xyz(0.55 * half * ACROSS + x, lower + 1.15 * thick + 0.075 * arch, depth - 0.1), darken(who.skin, 0.09))
    pen.fill(between(wide, upper - bow, lower + 1.15 * thick * arch, depth), who.lips)
    pen.fill(between(wide, upper - bow, upper, depth), darken(who.lips, 0.12))
    shine = lower + (0.42 + 0.14 * arch) * thick
    pen.fill(between(0.5 * half * ACROSS + x, shine, shine + 0.35 * thick * arch, depth), darken(who.lips, -0.14))
    is_open = gap[..., 0] > 0.02
    pen.fill(between(across, upper, lower, depth), DEEP, is_open)
    tongue = np.minimum(gap * (0.25 + 0.5 * column(mouth.tongue)), gap) * arch
    pen.fill(between(across * 0.8, lower - tongue, lower, depth), TONGUE, is_open)
    teeth = np.minimum((0.035 + 0.06 * column(mouth.teeth)) * arch, lower - upper)
    pen.fill(between(across, upper, upper + teeth, depth), TEETH, is_open)
    middle = upper + gap / 2 * arch
    pen.fill(between(across, middle - 0.015, middle + 0.015, depth), darken(who.lips, 0.45), ~is_open)
    center = len(ACROSS) // 2
    corners = [(x - half[..., 0], upper[..., 0]), (x + half[..., 0], upper[..., -1])]
    inner = [(x, upper[..., center]), (x, lower[..., center])]
    return np.stack([xyz(px, py, depth[..., 0]) for px, py in (*corners, *inner)], axis=-2)
