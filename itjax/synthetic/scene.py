"""The scene of a drawn clip: people, the wall behind them, motion of people and camera. All of it is randomly generated."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from itjax.media.containers import FRAME_RATE
from itjax.synthetic.face import Color, FacePositions, Identity, Look, Pose, darken, draw, mix
from itjax.synthetic.mouth import Mouth, at

# F frames · H W pixels · world units: y is 0 to 1 over the picture's height while the camera is at rest

SUPERSAMPLING = 3  # supersampling factor, for smooth edges

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
    """A person in a scene. `pose` and `look` hold one value per frame."""

    identity: Identity
    mood: str
    pose: Pose
    look: Look


class Wall(NamedTuple):
    """The background: a colour, and boxes (left, top, right, bottom in world units) with their own colours."""

    name: str
    color: Color
    boxes: tuple[tuple[tuple[float, float, float, float], Color], ...]


class Camera(NamedTuple):
    """Pan and zoom, one value per frame: world point x is seen at `zoom`*(x + pan)."""

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
    """A random identity, and its description in a prompt."""
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
        lips=mix(skin, (188, 62, 72), 0.75 if woman else 0.55),
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
    extras = [words for present, words in ((glasses, "glasses"), (beard, "a beard")) if present]
    listed = ", ".join([hair_words, *extras[:-1]]) + (f" and {extras[-1]}" if extras else "")
    return who, f"a {'woman' if woman else 'man'} with {listed} in {worn}"


def _near(rng: np.random.Generator, color: Color, spread: float) -> Color:
    return tuple(int(np.clip(c + rng.normal(0, spread), 0, 255)) for c in color)  # type: ignore[return-value]


def drift(rng: np.random.Generator, num_frames: int, seconds: float, amplitude: float) -> Float[np.ndarray, " F"]:
    """A smooth random track around 0 that changes direction about every `seconds`."""
    frames_per_knot = seconds * FRAME_RATE
    knots = rng.normal(0, amplitude, int(num_frames / frames_per_knot) + 5).clip(-2 * amplitude, 2 * amplitude)
    position = np.arange(num_frames) / frames_per_knot + rng.random()
    knot, t = position.astype(int), position % 1
    a, b, c, d = (knots[knot + i] for i in range(4))
    # a uniform cubic B-spline: smooth, without corners
    return ((1 - t) ** 3 * a + (3 * t**3 - 6 * t**2 + 4) * b + (-3 * t**3 + 3 * t**2 + 3 * t + 1) * c + t**3 * d) / 6


def blinks(rng: np.random.Generator, num_frames: int) -> Float[np.ndarray, " F"]:
    """Eye opening per frame: a blink every two to five seconds."""
    is_open, frame = np.ones(num_frames), rng.integers(10, 80)
    while frame < num_frames:
        for offset, value in enumerate((0.5, 0.05, 0.05, 0.5)):
            if frame + offset < num_frames:
                is_open[frame + offset] = value
        frame += int(rng.integers(50, 125))
    return is_open


def person(rng: np.random.Generator, num_frames: int, x: float, size: float, liveliness: float) -> tuple[Person, str]:
    """A random person around `x` (world units), and its description in a prompt.

    `size`: half height of the head. `liveliness`: scale of the head's motion; eyes and brows always move.
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
    color = _near(rng, darken(COLORS[name], -0.25), 6.0)
    boxes = []
    for _ in range(rng.integers(1, 4)):
        left, top, width, height = (
            rng.uniform(-0.3, 1.1),
            rng.uniform(-0.1, 0.6),
            rng.uniform(0.1, 0.4),
            rng.uniform(0.1, 0.4),
        )
        boxes.append(((left, top, left + width, top + height), _near(rng, darken(color, rng.uniform(-0.4, 0.4)), 10.0)))
    return Wall(name, color, tuple(boxes))


def camera(rng: np.random.Generator, num_frames: int, liveliness: float) -> Camera:
    """A random camera motion; in half of the clips the camera is at rest."""
    moves = liveliness * float(rng.random() < 0.5)
    pan_x, pan_y = (drift(rng, num_frames, 2.0, 0.06 * moves) for _ in range(2))
    return Camera(pan_x, pan_y, 1 + drift(rng, num_frames, 2.5, 0.08 * moves))


def scene(
    rng: np.random.Generator, num_frames: int, persons: int = 1, aspect: float = 1.0, liveliness: float = 1.0
) -> Scene:
    """A random scene: one person in the middle, or two side by side.

    `aspect`: width / height. `liveliness`: scale of the motion of heads and camera, 0 for none; eyes and brows always move.
    """
    background = wall(rng)
    if persons == 1:
        people = [person(rng, num_frames, aspect / 2, rng.uniform(0.27, 0.34), liveliness)]
        words = people[0][1]
        prompt = f"{words}, {people[0][0].mood}, is talking in front of a {background.name} wall."
    else:
        size = min(0.30, 0.17 * aspect)
        people = [person(rng, num_frames, aspect * at_x, size, 0.7 * liveliness) for at_x in (0.27, 0.73)]
        (left, left_words), (right, right_words) = people
        prompt = (
            f"on the left {left_words}, {left.mood}; on the right {right_words}, {right.mood}; "
            f"they are talking in front of a {background.name} wall."
        )
    return Scene(tuple(member for member, _ in people), background, camera(rng, num_frames, liveliness), prompt)


def frame(
    shown: Scene, number: int, mouths: tuple[Mouth, ...], height: int, width: int
) -> tuple[UInt8[np.ndarray, "{height} {width} 3"], tuple[FacePositions, ...]]:
    """Draws a frame; returns it with the positions of each person's face. `mouths`: one per person, over time."""
    zoom = float(shown.camera.zoom[number]) * height * SUPERSAMPLING
    aspect = width / height
    # zooming keeps the centre of the picture fixed
    origin = (
        (float(shown.camera.pan_x[number]) - aspect / 2) * zoom + width * SUPERSAMPLING / 2,
        (float(shown.camera.pan_y[number]) - 0.5) * zoom + height * SUPERSAMPLING / 2,
    )
    picture = np.full((height * SUPERSAMPLING, width * SUPERSAMPLING, 3), shown.wall.color, np.uint8)
    for (left, top, right, bottom), color in shown.wall.boxes:
        first, last = ((round(x * zoom + origin[0]), round(y * zoom + origin[1])) for x, y in ((left, top), (right, bottom)))
        cv2.rectangle(picture, first, last, color, cv2.FILLED)
    seen = []
    for member, mouth in zip(shown.people, mouths, strict=True):
        pose = Pose(*(float(values[number]) for values in member.pose))
        look = Look(*(float(values[number]) for values in member.look))
        positions = draw(picture, member.identity, pose, at(mouth, number), look, zoom, origin)
        seen.append(FacePositions(*(tuple(value / SUPERSAMPLING for value in place) for place in positions)))  # type: ignore[arg-type]
    downsampled = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return downsampled, tuple(seen)
