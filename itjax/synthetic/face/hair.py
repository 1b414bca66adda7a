"""The hair of a drawn person: what hangs behind the head, and what lies on it."""

import numpy as np

from itjax.synthetic.face.identity import Identity, darken
from itjax.synthetic.face.pen import Pen, oval, smooth, xyz

TOP = np.linspace(np.pi, 2 * np.pi, 41)  # over the head from its left to its right


def draw_hair_behind(pen: Pen, who: Identity) -> None:
    """Draws the hair behind neck and ears."""
    dark, w = darken(who.hair, 0.25), who.width
    if who.hair_style == "long":
        side = [(w * 1.10, -0.5), (w * 1.30, 0.1), (w * 1.36, 0.8), (w * 1.22, 1.22), (w * 0.8, 1.34)]
        pen.fill(smooth([(0, -1.0), *side, *[(-x, y) for x, y in side[::-1]]], -0.35), dark)
    elif who.hair_style == "tied":
        pen.fill(oval(0.0, -1.12, -0.3, 0.33, 0.29), dark)
        pen.blend(oval(0.0, -1.17, -0.25, 0.27, 0.21), dark, darken(who.hair, -0.10), 4)
    elif who.hair_style == "curly":
        bumps = 1 + 0.05 * np.abs(np.sin(7 * np.linspace(0, 2 * np.pi, 97)[:-1]))
        angles = np.linspace(0, 2 * np.pi, 97)[:-1]
        pen.fill(xyz(1.26 * w * bumps * np.cos(angles), -0.28 + 0.98 * bumps * np.sin(angles), -0.3), dark)


def draw_hair(pen: Pen, who: Identity, light: float) -> None:
    """Draws the hair on the head; `light`: the side from which it comes, -1 left, 1 right."""
    w = who.width
    if who.hair_style == "no":
        pen.blend(oval(0.25 * light, -0.74, 0.4, 0.34 * w, 0.12), who.skin, darken(who.skin, -0.22), 4)
        return
    bulge, high = {"curly": (1.20, 1.08), "tied": (1.05, 0.98)}.get(who.hair_style, (1.11, 1.03))
    bumps = 1 + (0.045 * np.abs(np.sin(9 * TOP)) if who.hair_style == "curly" else 0.0)
    over = xyz(bulge * w * bumps * np.cos(TOP), -0.13 + high * bumps * np.sin(TOP), 0.05)
    line = -0.80 + 0.26 * who.fringe
    temple = 0.16 if who.hair_style == "short" and not who.woman else 0.0
    root = [(w * 1.06, 0.02 + temple), (w * 0.95, -0.06 + temple), (w * 0.90, -0.36), (0.55 * w, line + 0.10)]
    peak = 0.45 * who.parting * w
    front = [*root, (peak, line - 0.10), (-0.55 * w, line + 0.10), *[(-x, y) for x, y in root[2::-1]]]
    hairline = smooth(front, 0.35, closed=False)
    pen.fill(np.concatenate([over, hairline], axis=-2), who.hair)
    shadow = xyz(hairline[:, 0] * 0.97, hairline[:, 1] - 0.05, 0.36)
    pen.fill(np.concatenate([hairline, shadow[::-1]], axis=-2), darken(who.hair, 0.18))
    steps = pen.steps(5)
    for step in range(steps):  # light on the hair: sickles that shrink
        wide, thick = 1.0 - 0.8 * step / steps, (1.0 - step / steps) * (1 - np.linspace(-1, 1, 13) ** 2)
        angles = 1.33 * np.pi + 0.46 * wide * np.linspace(-1, 1, 13)
        x, y = -light * np.cos(angles) * bulge * w, np.sin(angles) * high
        out, inner = (xyz((0.84 + by * thick) * x, -0.13 + (0.84 + by * thick) * y, 0.1) for by in (0.07, -0.05))
        pen.fill(np.concatenate([out, inner[::-1]], axis=-2), darken(who.hair, -0.225 * (step + 1) / steps))
    if who.hair_style == "long":
        for side in (-1, 1):
            strand = [
                (0.88, -0.50),
                (1.10, -0.35),
                (1.28, 0.15),
                (1.34, 0.80),
                (1.16, 1.18),
                (0.94, 1.02),
                (0.98, 0.40),
                (0.93, 0.0),
            ]
            pen.fill(smooth([(side * w * x, y) for x, y in strand], 0.2), who.hair)
            shine = [(1.10, -0.15), (1.19, 0.15), (1.22, 0.6), (1.13, 0.3)]
            pen.fill(smooth([(side * w * x, y) for x, y in shine], 0.22), darken(who.hair, -0.13))
