"""The head of a drawn person: ears, skin with soft shading, nose, beard."""

import numpy as np
from jaxtyping import Float

from itjax.synthetic.face.identity import Color, Identity, darken, mix
from itjax.synthetic.face.pen import Pen, column, oval, smooth, xyz
from itjax.synthetic.mouth import Track

LIGHT, BLUSH = (255, 236, 206), (226, 84, 84)
ROUND = np.linspace(0, 2 * np.pi, 49)[:-1]
RINGS = 6  # steps of the shading from the edge of the face to its middle


def outline(who: Identity, drop: Track, scale: float = 1.0) -> Float[np.ndarray, "F N 3"]:
    """The face's outline. `drop`: how far the chin moves down with the jaw."""
    across, down = np.cos(ROUND), np.sin(ROUND)
    power = 1.0 - (0.05 + 0.22 * who.jaw) * down.clip(0) ** 0.5  # a square jaw stays wide for longer
    narrow = 1.0 - (0.16 - 0.12 * who.jaw) * down.clip(0) ** 1.5
    x = who.width * np.sign(across) * np.abs(across) ** power * narrow
    return xyz(scale * x, scale * down * (1 + column(drop) * (down > 0)), 0.0)


def draw_ears(pen: Pen, who: Identity) -> None:
    """Draws the ears, with rings if the person wears any."""
    for side in (-1, 1):
        x, size = side * who.width * 1.01, who.ear
        pen.fill(oval(x, 0.04, -0.15, 0.13 * size, 0.23 * size), darken(who.skin, 0.10))
        pen.fill(oval(x + side * 0.015, 0.03, -0.14, 0.075 * size, 0.15 * size), darken(who.skin, 0.24))
        if who.earrings:
            pen.fill(oval(x, 0.04 + 0.29 * size, -0.1, 0.045, 0.06), (236, 196, 92))


def draw_face(pen: Pen, who: Identity, drop: Track, light: float) -> None:
    """Draws the skin: darker towards the edge, lighter on the side of the light (-1 left, 1 right)."""
    edge = darken(who.skin, 0.10)
    rings = pen.steps(RINGS)
    for ring in range(rings + 1):
        share = ring / rings
        inner = outline(who, drop, 1 - 0.21 * share) + [0.045 * light * share, -0.035 * share, 0.05 * share]
        pen.fill(inner, mix(edge, who.skin, share))
    bright = mix(who.skin, LIGHT, 0.13)
    pen.blend(oval(0.12 * light, -0.46, 0.25, 0.52 * who.width, 0.28), who.skin, bright, 6)
    for side in (-1, 1):
        cheek = mix(who.skin, BLUSH, 0.15 if who.woman else 0.10)
        pen.blend(oval(side * 0.52 * who.width, 0.29, 0.22, 0.21, 0.17), who.skin, cheek, 6)
    if light:  # the cheekbone in the light
        pen.blend(oval(light * 0.50 * who.width, 0.09, 0.3, 0.17, 0.06), who.skin, mix(who.skin, LIGHT, 0.10), 4)
    if who.freckles:
        _freckles(pen, who)
    chin = oval(0.02 * light, 0.84 + column(drop), 0.35, 0.19, 0.09)
    pen.blend(chin, who.skin, mix(who.skin, LIGHT, 0.06), 3)


def _freckles(pen: Pen, who: Identity) -> None:
    places = [(0.30, 0.16), (0.40, 0.23), (0.34, 0.30), (0.48, 0.18), (0.24, 0.25), (0.53, 0.28), (0.12, 0.20)]
    color = mix(who.skin, (150, 84, 40), 0.34)
    for side in (-1, 1):
        for number, (x, y) in enumerate(places):
            pen.fill(oval(side * x + 0.02 * (number % 2), y, 0.72, 0.02, 0.02, slice(None, None, 4)), color)


def draw_nose(pen: Pen, who: Identity, light: float) -> None:
    """Draws the nose: a shadow on the side away from the light, a bright ridge, nostrils."""
    shade, far = darken(who.skin, 0.15), -light or 1.0
    tip, wide = 0.14 + who.nose, 0.115 * who.nose_width
    side = [
        (0.03 * far, -0.16),
        (0.055 * far, 0.0),
        (wide * far, tip - 0.03),
        (wide * 0.9 * far, tip + 0.05),
        (0.0, tip + 0.06),
    ]
    pen.fill(smooth([*side, (0.01 * far, tip - 0.06)], 0.9), darken(who.skin, 0.09))
    pen.fill(smooth([(-wide, tip), (0, tip + 0.02), (wide, tip), (wide * 0.7, tip + 0.075), (0, tip + 0.095),
                     (-wide * 0.7, tip + 0.075)], 0.93), shade)  # fmt: skip
    pen.fill(oval(0.0, tip - 0.01, 1.0, wide * 0.72, 0.065), mix(who.skin, shade, 0.25))
    ridge = [(-0.03, -0.10), (0.03, -0.10), (0.035, tip - 0.05), (0.0, tip + 0.0), (-0.035, tip - 0.05)]
    pen.fill(smooth([(x - 0.012 * far, y) for x, y in ridge], 0.98), mix(who.skin, LIGHT, 0.12))
    pen.fill(oval(-0.02 * far, tip - 0.035, 1.03, 0.035, 0.028), mix(who.skin, LIGHT, 0.40))
    for nostril in (-1, 1):
        pen.fill(oval(nostril * wide * 0.52, tip + 0.052, 0.95, 0.036, 0.02), darken(who.skin, 0.48))


def draw_beard(pen: Pen, who: Identity, drop: Track) -> None:
    """Draws a beard around the mouth, and a moustache."""
    low = column(drop)[..., 0]
    wide = who.width
    sides = [(-wide * 0.985, 0.06), (-wide * 0.94, 0.40), (-0.58, 0.84 + low), (0.0, 1.07 + low)]
    right = [(-x, y) for x, y in sides[-2::-1]]
    inner = [
        (wide * 0.80, 0.22),
        (0.44, 0.37),
        (0.20, 0.335),
        (0.0, 0.345),
        (-0.20, 0.335),
        (-0.44, 0.37),
        (-wide * 0.80, 0.22),
    ]
    color = darken(who.hair, 0.1)
    pen.fill(smooth([*sides, *right, *inner], 0.45), color)
    pen.blend(
        smooth([(-0.36, 0.82 + low), (0.0, 0.76 + low), (0.36, 0.82 + low), (0.0, 1.0 + low)], 0.5), color, who.hair, 3
    )


def neck_color(who: Identity) -> Color:
    """The neck lies in the shade of the head."""
    return darken(who.skin, 0.13)
