"""The room behind drawn people: a wall in soft light with things on it, out of focus, as a photographer would have it."""

import functools
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from itjax.synthetic.face import Color, darken, mix
from itjax.synthetic.people import near, wall_color

# world units: y is 0 to 1 over the picture's height while the camera is at rest

MARGIN = 0.4  # of the wall around the picture, which a moving camera may show
DETAIL = 256  # pixels per world unit, whatever the size of the picture: it is blurred
BLUR = 0.010  # standard deviation in world units
THINGS = ("window", "picture", "shelf", "plant", "lamp")
WOOD, LEAVES, GLOW = (150, 112, 78), (84, 132, 84), (255, 240, 204)


class Thing(NamedTuple):
    """A thing at the wall: its kind, middle and size (world units), and colour."""

    kind: str
    x: float
    y: float
    size: float
    color: Color


class Wall(NamedTuple):
    """The background: a colour and its name, the things on it, and the side of the light (-1 left, 1 right)."""

    name: str
    color: Color
    things: tuple[Thing, ...]
    light: float

    @property
    def words(self) -> str:
        """What a prompt says of the wall."""
        kinds = [f"a {thing.kind}" for thing in self.things]
        listed = f"{', '.join(kinds[:-1])} and {kinds[-1]}" if len(kinds) > 1 else "".join(kinds)
        article = "an" if self.name[0] in "aeiou" else "a"
        return f"{article} {self.name} wall with {listed}"


def wall(rng: np.random.Generator, aspect: float) -> Wall:
    """A light wall with one to three things on it, of which a window is always on the side of the light."""
    name, color = wall_color(rng)
    light = float(rng.choice((-1, 1)))
    kinds = rng.permutation(THINGS)[: rng.integers(1, 4)].tolist()
    sides = [light if kinds[0] == "window" else -light, light, -light]
    if "window" in kinds:  # first, so that it comes first in the list of sides
        kinds, sides = sorted(kinds, key=lambda kind: kind != "window"), [light, -light, light]
    things = []
    for kind, side in zip(kinds, sides, strict=False):
        x = aspect / 2 + side * (aspect / 2 - rng.uniform(0.02, 0.16))
        y = {"plant": rng.uniform(0.55, 0.7), "lamp": rng.uniform(0.4, 0.55)}.get(str(kind), rng.uniform(0.15, 0.35))
        tint = (WOOD, (90, 110, 140), (176, 92, 74), (226, 214, 188))[rng.integers(4)]
        things.append(Thing(str(kind), float(x), float(y), float(rng.uniform(0.16, 0.24)), near(rng, tint, 8.0)))
    return Wall(name, color, tuple(things), light)


@functools.lru_cache(maxsize=4)
def painted(shown: Wall, aspect: float) -> UInt8[np.ndarray, "h w 3"]:
    """The wall at `DETAIL` pixels per world unit, from -`MARGIN` to `MARGIN` beyond the picture."""
    height, width = (round((side + 2 * MARGIN) * DETAIL) for side in (1.0, aspect))
    picture = np.full((height, width, 3), shown.color, np.uint8)
    pixel = lambda x, y: (round((x + MARGIN) * DETAIL), round((y + MARGIN) * DETAIL))
    cv2.rectangle(picture, pixel(-1, 0.92), pixel(aspect + 1, 3), darken(shown.color, 0.22), cv2.FILLED)
    cv2.rectangle(picture, pixel(-1, 0.91), pixel(aspect + 1, 0.925), darken(shown.color, -0.3), cv2.FILLED)
    corner = aspect * (0.5 - 0.38 * shown.light)  # of the room: the other wall lies in the shade
    far = -0.5 if shown.light > 0 else aspect + 0.5
    points = np.array([pixel(corner, -1), pixel(corner, 0.92), pixel(far, 1.3), pixel(far, -1)], np.int32)
    cv2.fillPoly(picture, [points], darken(shown.color, 0.14))
    for thing in shown.things:
        _paint(picture, thing, pixel)
    soft = cv2.GaussianBlur(picture, (0, 0), BLUR * DETAIL).astype(np.float32)
    across = np.linspace(-1, 1, width)[None, :] * shown.light
    down = np.linspace(-1, 1, height)[:, None]
    lit = 1.0 + 0.10 * across - 0.06 * down - 0.05 * across**2
    return np.clip(soft * lit[..., None], 0, 255).astype(np.uint8)


def _paint(picture: UInt8[np.ndarray, "h w 3"], thing: Thing, pixel) -> None:
    kind, x, y, size, color = thing

    def box(left: float, top: float, right: float, bottom: float, fill: Color) -> None:
        first, last = pixel(x + left * size, y + top * size), pixel(x + right * size, y + bottom * size)
        cv2.rectangle(picture, first, last, fill, cv2.FILLED)

    def round_spot(dx: float, dy: float, wide: float, high: float, fill: Color, turn: int = 0) -> None:
        axes = (round(wide * size * DETAIL), round(high * size * DETAIL))
        cv2.ellipse(picture, pixel(x + dx * size, y + dy * size), axes, turn, 0, 360, fill, cv2.FILLED)

    if kind == "window":
        box(-0.9, -1.3, 0.9, 1.3, (240, 238, 232))
        box(-0.78, -1.18, 0.78, 1.18, (204, 226, 244))
        round_spot(-0.2, 1.0, 0.7, 0.5, (164, 198, 160))
        box(-0.9, 1.18, 0.9, 1.3, (240, 238, 232))
        box(-0.05, -1.2, 0.05, 1.2, (240, 238, 232))
        box(-0.8, -0.05, 0.8, 0.05, (240, 238, 232))
    elif kind == "picture":
        box(-0.8, -0.6, 0.8, 0.6, darken(color, 0.5))
        box(-0.7, -0.5, 0.7, 0.5, (236, 232, 222))
        box(-0.55, -0.38, 0.55, 0.38, color)
        round_spot(0.2, 0.12, 0.35, 0.22, mix(color, GLOW, 0.5))
    elif kind == "shelf":
        books = [(-0.9, 0.62), (-0.7, 0.5), (-0.52, 0.66), (-0.3, 0.55), (0.0, 0.6), (0.2, 0.45), (0.42, 0.64)]
        tints = [(170, 76, 66), (74, 106, 146), (212, 186, 120), (94, 130, 98), color, (120, 92, 140), (206, 204, 198)]
        for row in (0.0, 0.95):
            for (left, high), tint in zip(books, tints if row else tints[::-1], strict=True):
                box(left, row - high, left + 0.16, row, darken(tint, 0.1))
            box(-1.05, row, 1.05, row + 0.09, WOOD)
    elif kind == "plant":
        for turn in (-70, -35, 0, 35, 70):
            bend = np.radians(turn)
            tint = darken(LEAVES, 0.004 * abs(turn) - 0.1)
            round_spot(0.65 * np.sin(bend), -0.6 * np.cos(bend), 0.15, 0.62, tint, turn)
        box(-0.32, 0.0, 0.32, 0.7, (190, 112, 84))
        box(-0.38, -0.05, 0.38, 0.1, (204, 126, 96))
    else:  # lamp
        red, green, blue = (int(c) for c in picture[pixel(x, y)[::-1]])
        for step in range(6):
            wide = 1.5 - 0.16 * step
            round_spot(0.0, -0.4, wide, 0.95 * wide, mix((red, green, blue), GLOW, 0.09 * (step + 1)))
        box(-0.05, 0.0, 0.05, 3.5, (96, 84, 76))
        corners = [(-0.35, -0.75), (0.35, -0.75), (0.6, 0.05), (-0.6, 0.05)]
        shade = np.array([pixel(x + a * size, y + b * size) for a, b in corners], np.int32)
        cv2.fillPoly(picture, [shade], GLOW)
