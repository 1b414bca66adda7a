"""The eyes of a drawn person, with lids, brows and glasses."""

import numpy as np
from jaxtyping import Float

from itjax.synthetic.face.identity import Identity, Look, darken, mix
from itjax.synthetic.face.pen import Pen, between, column, oval, xyz

EYE_HEIGHT, EYE_DEPTH, BROW_DEPTH = -0.12, 0.80, 0.82
WHITE, FRAME = (245, 245, 240), (38, 36, 42)
ACROSS = np.linspace(-1, 1, 13)
ALONG = np.linspace(0, 1, 11)


def draw_eyes(pen: Pen, who: Identity, look: Look, light: float) -> Float[np.ndarray, "F 2 3"]:
    """Draws both eyes and brows; returns the middles of the brows (left, right)."""
    brows = [_eye(pen, who, look, side, light) for side in (-1, 1)]
    if who.glasses:
        _glasses(pen, who)
    return np.stack(brows, axis=-2)


def _eye(pen: Pen, who: Identity, look: Look, side: int, light: float) -> Float[np.ndarray, "F 3"]:
    x, size, z = side * who.eye_distance, who.eye_size, EYE_DEPTH
    arch = (1 - ACROSS**2) ** 0.7
    line = x + size * ACROSS
    wide = EYE_HEIGHT - 0.62 * size * arch  # the upper lid of an open eye
    lower = EYE_HEIGHT + 0.44 * size * arch
    opening = column(look.open).clip(0.0, 1.0)
    upper = lower + (wide - lower) * opening
    socket = mix(who.skin, darken(who.skin, 0.3), 0.30)
    pen.fill(oval(x, EYE_HEIGHT - 0.05, z - 0.1, size * 1.25, size * 1.05), mix(who.skin, socket, 0.5))
    pen.fill(between(x + size * 1.06 * ACROSS, wide - 0.05 * arch, lower, z), socket)
    is_open = np.asarray(look.open) > 0.15
    pen.fill(between(line, upper, lower, z), WHITE, is_open)
    pen.fill(between(line, upper, upper + 0.16 * size * opening * arch, z), (212, 208, 206), is_open)  # the lid's shadow
    center_x = x + 0.34 * size * column(look.gaze_x)
    center_y = EYE_HEIGHT - 0.04 * size + 0.22 * size * column(look.gaze_y)
    for radius, color in ((0.52, darken(who.eyes, 0.45)), (0.45, who.eyes), (0.23, (20, 18, 18))):
        disk = oval(center_x, center_y, z + 0.02, radius * size, radius * size)
        at = ((disk[..., 0] - x) / size).clip(-1, 1)
        limit = (1 - at**2) ** 0.7
        low = EYE_HEIGHT + 0.44 * size * limit
        high = low + (EYE_HEIGHT - 0.62 * size * limit - low) * opening
        disk[..., 1] = disk[..., 1].clip(high, low)
        pen.fill(disk, color, is_open)
    glint = oval(center_x + 0.16 * size * light, center_y - 0.17 * size, z + 0.03, 0.13 * size, 0.13 * size)
    pen.fill(glint, (255, 255, 255), np.asarray(look.open) > 0.6)
    lash = 0.030 + (0.014 if who.woman else 0.0)
    tail = 0.05 * (ACROSS * side > 0.6) * (1.0 if who.woman else 0.3)
    pen.fill(between(x + size * 1.08 * ACROSS, upper - lash * arch - 0.012 - tail, upper + 0.008, z), darken(who.hair, 0.55))
    pen.fill(between(line, lower - 0.004, lower + 0.016 * arch, z), darken(who.skin, 0.28))
    crease = wide - 0.055 * arch - 0.03
    pen.fill(between(x + size * ACROSS, crease, crease + 0.018, z), darken(who.skin, 0.22))
    return _brow(pen, who, look, side)


def _brow(pen: Pen, who: Identity, look: Look, side: int) -> Float[np.ndarray, "F 3"]:
    brows = column(look.brows)
    y = EYE_HEIGHT - 0.25 - 0.10 * brows
    inner = 0.06 * np.maximum(0.0, -brows)  # a frown pulls the inner ends down
    x = side * who.eye_distance + side * who.eye_size * (-1.1 + 2.35 * ALONG)
    line = y + inner * (1 - ALONG) ** 2 + 0.03 * ALONG**2 - 0.20 * ALONG * (1 - ALONG)
    thick = 0.5 * who.brow * (0.35 + 1.1 * np.sin(np.pi * (0.12 + 0.86 * ALONG)))
    pen.fill(between(x, line - thick, line + thick, BROW_DEPTH), darken(who.hair, 0.35))
    middle = len(ALONG) // 2
    return xyz(x[middle], line[..., middle], BROW_DEPTH)


def draw_temples(pen: Pen, who: Identity) -> None:
    """Draws the sides of a pair of glasses, which the hair may cover."""
    for side in (-1, 1):
        end, ear = side * (who.eye_distance + 1.45 * who.eye_size), side * who.width
        x, y, z = np.array([end, ear, ear, end]), np.array([-0.17, -0.14, -0.10, -0.12]), np.array([0.95, 0.0, 0.0, 0.95])
        pen.fill(xyz(x, y, z), FRAME)


def _glasses(pen: Pen, who: Identity) -> None:
    z, wide = 0.95, who.eye_size
    for side in (-1, 1):
        x = side * who.eye_distance
        rim, glass = (oval(x, EYE_HEIGHT, z, wide * 1.45 + by, wide * 1.28 + by) for by in (0.022, -0.022))
        pen.fill(rim, FRAME, hole=glass)
    inner = who.eye_distance - wide * 1.45
    bridge = np.linspace(-inner, inner, 7)
    bend = EYE_HEIGHT - 0.03 * np.cos(np.linspace(-1.5, 1.5, 7))
    pen.fill(between(bridge, bend - 0.022, bend + 0.022, z), FRAME)
