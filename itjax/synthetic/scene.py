"""What a drawn clip shows: people, a wall behind them, how they and the camera move. Everything is drawn from a seed."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from itjax.media.containers import FRAME_RATE
from itjax.synthetic.face import Color, Identity, Look, Pose, Seen, darker, draw, mixed
from itjax.synthetic.mouth import Mouth, at

# F frames · H W pixels · the world: its y goes from 0 to 1 over the picture's height while the camera is at rest

FINER = 3  # drawn at so many times the size and made small again: edges are smooth

SKINS = {
    "pale": (244, 214, 196), "light": (232, 190, 162), "tan": (205, 155, 118), "brown": (150, 103, 74),
    "dark": (98, 66, 50),
}  # fmt: skip
HAIRS = {
    "black": (34, 28, 30),
    "brown": (96, 60, 38),
    "blond": (222, 184, 110),
    "red": (172, 76, 40),
    "grey": (158, 158, 162),
}
EYES = ((70, 110, 160), (92, 64, 42), (88, 128, 92), (52, 44, 44))
COLORS = {
    "red": (190, 60, 58), "orange": (224, 140, 62), "yellow": (228, 200, 92), "green": (86, 150, 94), "blue": (72, 112, 184),
    "purple": (126, 88, 164), "white": (228, 228, 224), "grey": (138, 142, 148),
}  # fmt: skip
MOODS = {"smiling": (0.9, 0.35), "serious": (-0.5, -0.8), "surprised": (0.0, 1.0), "calm": (0.1, 0.0)}  # smile, brows


class Person(NamedTuple):
    """Someone in a scene. `pose` and `look` hold a value a frame."""

    identity: Identity
    mood: str
    pose: Pose
    look: Look


class Wall(NamedTuple):
    """What is behind them: a colour, and boxes (left, top, right, bottom in the world) of colours of their own."""

    name: str
    color: Color
    boxes: tuple[tuple[tuple[float, float, float, float], Color], ...]


class Camera(NamedTuple):
    """Where it looks and how near it is, a value a frame: what lies at (x, y) in the world is seen at `zoom`*(x + pan)."""

    pan_x: Float[np.ndarray, " F"]
    pan_y: Float[np.ndarray, " F"]
    zoom: Float[np.ndarray, " F"]


class Scene(NamedTuple):
    """A clip without its speech."""

    people: tuple[Person, ...]
    wall: Wall
    camera: Camera
    prompt: str


def identity(rng: np.random.Generator) -> tuple[Identity, str]:
    """Somebody, and how a prompt would name them."""
    woman = bool(rng.random() < 0.5)
    pick = lambda choices: choices[rng.integers(len(choices))]
    skin, hair = pick(list(SKINS.values())), pick(list(HAIRS))
    style = "long" if woman and rng.random() < 0.75 else "no" if not woman and rng.random() < 0.2 else "short"
    glasses, beard = bool(rng.random() < 0.3), bool(not woman and rng.random() < 0.35)
    worn = pick(list(COLORS))
    who = Identity(
        woman=woman,
        skin=_near(rng, skin, 8.0),
        hair=_near(rng, HAIRS[hair], 8.0),
        hair_style=style,
        eyes=pick(EYES),
        lips=mixed(skin, (188, 62, 72), 0.75 if woman else 0.55),
        clothes=_near(rng, COLORS[worn], 10.0),
        glasses=glasses,
        beard=beard,
        width=rng.uniform(0.70, 0.84),
        eye_distance=rng.uniform(0.29, 0.36),
        eye_size=rng.uniform(0.14, 0.19),
        brow=rng.uniform(0.04, 0.08),
        nose=rng.uniform(0.0, 0.10),
        mouth=rng.uniform(0.26, 0.33),
    )
    hair_words = "no hair" if style == "no" else f"{style} {hair} hair"
    extras = [words for there, words in ((glasses, "glasses"), (beard, "a beard")) if there]
    listed = ", ".join([hair_words, *extras[:-1]]) + (f" and {extras[-1]}" if extras else "")
    return who, f"a {'woman' if woman else 'man'} with {listed} in {worn}"


def _near(rng: np.random.Generator, color: Color, spread: float) -> Color:
    return tuple(int(np.clip(c + rng.normal(0, spread), 0, 255)) for c in color)  # type: ignore[return-value]


def drift(rng: np.random.Generator, num_frames: int, seconds: float, amplitude: float) -> Float[np.ndarray, " F"]:
    """A smooth random path about 0, with a new direction about every `seconds`."""
    step = seconds * FRAME_RATE
    knots = rng.normal(0, amplitude, int(num_frames / step) + 5).clip(-2 * amplitude, 2 * amplitude)
    where = np.arange(num_frames) / step + rng.random()
    first, t = where.astype(int), where % 1
    a, b, c, d = (knots[first + i] for i in range(4))
    # a uniform cubic B-spline: it has no corners
    return ((1 - t) ** 3 * a + (3 * t**3 - 6 * t**2 + 4) * b + (-3 * t**3 + 3 * t**2 + 3 * t + 1) * c + t**3 * d) / 6


def blinks(rng: np.random.Generator, num_frames: int) -> Float[np.ndarray, " F"]:
    """How far the eyes are open: shut for a moment every two to five seconds."""
    is_open, frame = np.ones(num_frames), rng.integers(10, 80)
    while frame < num_frames:
        for offset, value in enumerate((0.5, 0.05, 0.05, 0.5)):
            if frame + offset < num_frames:
                is_open[frame + offset] = value
        frame += int(rng.integers(50, 125))
    return is_open


def person(rng: np.random.Generator, num_frames: int, x: float, size: float, liveliness: float) -> tuple[Person, str]:
    """Somebody about `x` in the world, and how a prompt would name them.

    `size`: half height of the head. `liveliness`: how much the head moves; eyes and brows move in any case.
    """
    who, words = identity(rng)
    mood = list(MOODS)[rng.integers(len(MOODS))]
    smile, brows = MOODS[mood]
    pose = Pose(
        yaw=(drift(rng, num_frames, 1.2, 0.2 * liveliness) + rng.normal(0, 0.1)).clip(-0.5, 0.5),
        pitch=drift(rng, num_frames, 0.8, 0.16 * liveliness),
        roll=drift(rng, num_frames, 1.5, 0.10 * liveliness),
        x=x + drift(rng, num_frames, 1.5, 0.03 * liveliness),
        y=0.46 + drift(rng, num_frames, 1.0, 0.02 * liveliness),
        size=np.full(num_frames, size),
    )
    look = Look(
        open=blinks(rng, num_frames),
        gaze_x=drift(rng, num_frames, 0.7, 0.5).clip(-1, 1),
        gaze_y=drift(rng, num_frames, 0.9, 0.3).clip(-1, 1),
        brows=(brows + drift(rng, num_frames, 0.8, 0.3)).clip(-1, 1),
        smile=np.full(num_frames, smile),
    )
    return Person(who, mood, pose, look), words


def wall(rng: np.random.Generator) -> Wall:
    """A light wall with one to three boxes on it."""
    name = list(COLORS)[rng.integers(len(COLORS))]
    color = _near(rng, darker(COLORS[name], -0.25), 6.0)
    boxes = []
    for _ in range(rng.integers(1, 4)):
        left, top, width, height = (
            rng.uniform(-0.3, 1.1),
            rng.uniform(-0.1, 0.6),
            rng.uniform(0.1, 0.4),
            rng.uniform(0.1, 0.4),
        )
        boxes.append(((left, top, left + width, top + height), _near(rng, darker(color, rng.uniform(-0.4, 0.4)), 10.0)))
    return Wall(name, color, tuple(boxes))


def camera(rng: np.random.Generator, num_frames: int, liveliness: float) -> Camera:
    """At rest in half of the clips."""
    moves = liveliness * float(rng.random() < 0.5)
    pan_x, pan_y = (drift(rng, num_frames, 2.0, 0.06 * moves) for _ in range(2))
    return Camera(pan_x, pan_y, 1 + drift(rng, num_frames, 2.5, 0.08 * moves))


def scene(
    rng: np.random.Generator, num_frames: int, persons: int = 1, aspect: float = 1.0, liveliness: float = 1.0
) -> Scene:
    """One person in the middle, or two side by side.

    `aspect`: width by height. `liveliness`: how much heads and camera move, 0 holds them still; eyes and brows move in any
    case.
    """
    behind = wall(rng)
    if persons == 1:
        everybody = [person(rng, num_frames, aspect / 2, rng.uniform(0.27, 0.34), liveliness)]
        who = everybody[0][1]
        prompt = f"{who}, {everybody[0][0].mood}, is talking in front of a {behind.name} wall."
    else:
        size = min(0.30, 0.17 * aspect)
        everybody = [person(rng, num_frames, aspect * at_x, size, 0.7 * liveliness) for at_x in (0.27, 0.73)]
        (left, left_words), (right, right_words) = everybody
        prompt = (
            f"on the left {left_words}, {left.mood}; on the right {right_words}, {right.mood}; "
            f"they are talking in front of a {behind.name} wall."
        )
    return Scene(tuple(each for each, _ in everybody), behind, camera(rng, num_frames, liveliness), prompt)


def frame(
    shown: Scene, number: int, mouths: tuple[Mouth, ...], height: int, width: int
) -> tuple[UInt8[np.ndarray, "{height} {width} 3"], tuple[Seen, ...]]:
    """Draws a frame. `mouths`: one of each person, over time. Also where each person's face is, in its pixels."""
    zoom = float(shown.camera.zoom[number]) * height * FINER
    aspect = width / height
    # the zoom keeps the middle of the picture where it is
    origin = (
        (float(shown.camera.pan_x[number]) - aspect / 2) * zoom + width * FINER / 2,
        (float(shown.camera.pan_y[number]) - 0.5) * zoom + height * FINER / 2,
    )
    picture = np.full((height * FINER, width * FINER, 3), shown.wall.color, np.uint8)
    for (left, top, right, bottom), color in shown.wall.boxes:
        first, last = ((round(x * zoom + origin[0]), round(y * zoom + origin[1])) for x, y in ((left, top), (right, bottom)))
        cv2.rectangle(picture, first, last, color, cv2.FILLED)
    seen = []
    for who, mouth in zip(shown.people, mouths, strict=True):
        pose = Pose(*(float(values[number]) for values in who.pose))
        look = Look(*(float(values[number]) for values in who.look))
        found = draw(picture, who.identity, pose, at(mouth, number), look, zoom, origin)
        seen.append(Seen(*(tuple(value / FINER for value in place) for place in found)))  # type: ignore[arg-type]
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return small, tuple(seen)
