"""Neck, shoulders and clothes of a drawn person."""

import numpy as np

from itjax.synthetic.face.head import neck_color
from itjax.synthetic.face.identity import Identity, darken
from itjax.synthetic.face.pen import Pen, column, oval, smooth, xyz
from itjax.synthetic.mouth import Track

BOTTOM = 6.0  # below every picture


def draw_body(pen: Pen, who: Identity, drop: Track, light: float) -> None:
    """Draws the shoulders in their clothes, the neck, and the head's shadow on it."""
    slope = 0.0 if who.woman else 0.08  # men's shoulders are wider
    half = [
        (0.30, 1.20),
        (0.46, 1.34),
        (1.00 + slope, 1.50),
        (1.48 + 2 * slope, 1.82),
        (1.66 + 2 * slope, 2.6),
        (1.7, BOTTOM),
    ]
    pen.fill(smooth([*[(-x, y) for x, y in half[::-1]], *half], -0.3), who.clothes)
    far = -light or 1.0
    sleeve = ((1.46 + slope, 1.96), (1.34, 2.0), (1.18, 2.6), (1.14, BOTTOM), (1.64 + slope, BOTTOM), (1.60 + slope, 2.6))
    side = [(x * far, y) for x, y in sleeve]
    pen.fill(smooth(side, -0.28), darken(who.clothes, 0.13))
    lit = [(-x * far, y) for x, y in ((0.50, 1.42), (1.0, 1.56), (1.40, 1.84), (1.20, 1.84), (0.8, 1.66))]
    pen.fill(smooth(lit, -0.28), darken(who.clothes, -0.10))
    neck = neck_color(who)
    deep = {"round": 0.20, "shirt": 0.28, "jacket": 0.24}[who.collar]
    if who.collar == "round":
        pen.fill(oval(0.0, 1.36, -0.12, 0.52, deep + 0.09), darken(who.clothes, 0.20))
    elif who.collar == "jacket":
        white = (232, 230, 226)
        pen.fill(smooth([(-0.44, 1.26), (0.44, 1.26), (0.30, 1.8), (0.04, 2.5), (-0.04, 2.5), (-0.30, 1.8)], -0.2), white)
    wide = 0.35 if who.woman else 0.41
    column_of_neck = [(-wide, 0.5), (-wide * 0.97, 1.0), (-wide * 1.2, 1.34), (0.0, 1.36 + deep), (wide * 1.2, 1.34),
                      (wide * 0.97, 1.0), (wide, 0.5)]  # fmt: skip
    pen.fill(smooth(column_of_neck, -0.1), neck)
    low = np.asarray(column(drop))
    steps = pen.steps(5)
    for step in range(steps):
        reach = 0.46 - 0.22 * step / steps
        pen.fill(
            oval(0.02 * far, 0.86 + low, -0.06, wide * 0.97, reach), darken(who.skin, 0.13 + 0.175 * (step + 1) / steps)
        )
    if who.collar != "round":
        _collar(pen, who)


def _collar(pen: Pen, who: Identity) -> None:
    color = darken(who.clothes, -0.22) if who.collar == "shirt" else darken(who.clothes, 0.22)
    long = 0.0 if who.collar == "shirt" else 0.55  # lapels
    for side in (-1, 1):
        wing = [(0.50, 1.20), (0.56, 1.40), (0.52, 1.62 + long), (0.10, 1.74 + long), (0.30, 1.5)]
        pen.fill(smooth([(side * x, y) for x, y in wing], 0.0), color)
    if who.collar == "shirt":
        border = xyz(np.array([-0.016, 0.016, 0.016, -0.016]), np.array([1.70, 1.70, BOTTOM, BOTTOM]), -0.1)
        pen.fill(border, darken(who.clothes, 0.16))
        for y in (1.90, 2.24):
            pen.fill(oval(0.06, y, -0.05, 0.035, 0.035), darken(who.clothes, -0.5))
