"""The scene of a drawn clip: people, the room behind them, motion of people and camera. All of it is randomly generated."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from itjax.synthetic import room
from itjax.synthetic.face import FacePositions, Identity, Look, Pose, person_layers
from itjax.synthetic.face.pen import paint
from itjax.synthetic.motion import blinks, drift, with_gestures, with_listening
from itjax.synthetic.mouth import Mouth
from itjax.synthetic.people import identity
from itjax.synthetic.prosody import Prosody
from itjax.synthetic.room import DETAIL, MARGIN, Wall
from itjax.synthetic.splits import Split

# F frames · H W pixels · world units: y is 0 to 1 over the picture's height while the camera is at rest

SUPERSAMPLING = 2  # besides the anti-aliasing of polygons, which alone would not fit them to each other
SMALL = 96  # pixels: pictures of up to this height get fewer steps of shading
BLOCK = 64  # frames whose polygons are in memory at a time
MOODS = {"smiling": (0.9, 0.35), "serious": (-0.25, -0.6), "surprised": (0.0, 0.8), "calm": (0.1, 0.0)}  # smile, brows


class Person(NamedTuple):
    """A person in a scene. `pose` and `look` hold one value per frame."""

    identity: Identity
    mood: str
    pose: Pose
    look: Look


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


def person(
    rng: np.random.Generator, num_frames: int, x: float, size: float, liveliness: float, split: Split
) -> tuple[Person, str]:
    """A random person around `x` (world units), and its description in a prompt.

    `size`: half height of the head. `liveliness`: scale of the head's motion; eyes and brows always move.
    """
    who, words = identity(rng, split)
    mood = list(MOODS)[rng.integers(len(MOODS))]
    smile, brows = MOODS[mood]
    pose = Pose(
        yaw=(drift(rng, num_frames, 1.2, 0.2 * liveliness) + rng.normal(0, 0.1)).clip(-0.5, 0.5),
        pitch=drift(rng, num_frames, 1.0, 0.06 * liveliness),
        roll=drift(rng, num_frames, 1.5, 0.09 * liveliness),
        x=x + drift(rng, num_frames, 1.5, 0.03 * liveliness),
        y=0.46 + drift(rng, num_frames, 1.0, 0.015 * liveliness),
        size=np.full(num_frames, size),
    )
    look = Look(
        open=blinks(rng, num_frames),
        gaze_x=drift(rng, num_frames, 0.7, 0.5).clip(-1, 1),
        gaze_y=drift(rng, num_frames, 0.9, 0.3).clip(-1, 1),
        brows=(0.7 * brows + drift(rng, num_frames, 1.2, 0.15)).clip(-1, 1),
        smile=np.full(num_frames, smile),
    )
    return Person(who, mood, pose, look), words


def camera(rng: np.random.Generator, num_frames: int, liveliness: float) -> Camera:
    """A random camera motion; in half of the clips the camera is at rest."""
    moves = liveliness * float(rng.random() < 0.5)
    pan_x, pan_y = (drift(rng, num_frames, 2.0, 0.06 * moves) for _ in range(2))
    return Camera(pan_x, pan_y, 1 + drift(rng, num_frames, 2.5, 0.08 * moves))


def scene(
    rng: np.random.Generator, num_frames: int, persons: int = 1, aspect: float = 1.0, liveliness: float = 1.0,
    split: Split = "train",
) -> Scene:  # fmt: skip
    """A random scene: one person in the middle, or two side by side.

    `aspect`: width / height. `liveliness`: scale of the motion of heads and camera, 0 for none; eyes and brows always move.
    """
    background = room.wall(rng, aspect)
    if persons == 1:
        people = [person(rng, num_frames, aspect / 2, rng.uniform(0.27, 0.34), liveliness, split)]
        words = people[0][1]
        prompt = f"{words}, {people[0][0].mood}, is talking in front of {background.words}."
    else:
        size = min(0.30, 0.17 * aspect)
        people = [person(rng, num_frames, aspect * at_x, size, 0.7 * liveliness, split) for at_x in (0.27, 0.73)]
        (left, left_words), (right, right_words) = people
        prompt = (
            f"on the left {left_words}, {left.mood}; on the right {right_words}, {right.mood}; "
            f"they are talking in front of {background.words}."
        )
    return Scene(tuple(member for member, _ in people), background, camera(rng, num_frames, liveliness), prompt)


def acted(rng: np.random.Generator, shown: Scene, voices: Sequence[Prosody]) -> Scene:
    """The scene with the gestures of the people's speech (one prosody per person), and their listening to each other."""
    people = []
    for number, (member, own) in enumerate(zip(shown.people, voices, strict=True)):
        pose, look = with_gestures(member.pose, member.look, own)
        if len(voices) == 2:
            listens = voices[1 - number].speaking & ~own.speaking
            pose, look = with_listening(rng, pose, look, listens, 1.0 if number == 0 else -1.0)
        people.append(member._replace(pose=pose, look=look))
    return shown._replace(people=tuple(people))


def frame(
    shown: Scene, number: int, mouths: tuple[Mouth, ...], height: int, width: int
) -> tuple[UInt8[np.ndarray, "{height} {width} 3"], tuple[FacePositions, ...]]:
    """Draws a frame; returns it with the positions of each person's face. `mouths`: one per person, over time."""
    return next(_drawn(shown, mouths, height, width, slice(number, number + 1)))


def frames(
    shown: Scene, mouths: tuple[Mouth, ...], height: int, width: int
) -> Iterator[tuple[UInt8[np.ndarray, "{height} {width} 3"], tuple[FacePositions, ...]]]:
    """Draws all frames, as `frame` would one by one, but several times as fast."""
    for start in range(0, len(shown.camera.zoom), BLOCK):
        yield from _drawn(shown, mouths, height, width, slice(start, start + BLOCK))


def _drawn(
    shown: Scene, mouths: tuple[Mouth, ...], height: int, width: int, part: slice
) -> Iterator[tuple[UInt8[np.ndarray, "H W 3"], tuple[FacePositions, ...]]]:
    cut = lambda tracks: type(tracks)(*(np.asarray(values, np.float64)[part] for values in tracks))
    view = cut(shown.camera)
    scale, aspect = view.zoom * height * SUPERSAMPLING, width / height
    # zooming keeps the centre of the picture fixed
    middle = np.array([width, height]) * SUPERSAMPLING / 2
    pan = np.stack([view.pan_x, view.pan_y], axis=-1) - [aspect / 2, 0.5]
    origin = pan * scale[:, None] + middle
    layers, places = [], []
    for member, mouth in zip(shown.people, mouths, strict=True):
        added, seen = person_layers(
            member.identity,
            cut(member.pose),
            cut(mouth),
            cut(member.look),
            shown.wall.light,
            scale,
            origin - 0.5,
            height > SMALL,
        )  # 0.5: OpenCV counts from the middle of the first pixel, the world from its edge
        layers += added
        places.append([((np.asarray(place) + 0.5) / SUPERSAMPLING - 0.5).tolist() for place in seen])
    canvas = np.empty((height * SUPERSAMPLING, width * SUPERSAMPLING, 3), np.uint8)
    behind, before = canvas.copy(), None
    for number in range(len(scale)):
        now = (scale[number], *origin[number])
        if now != before:
            before = now
            _background(behind, shown.wall, aspect, *now)
        np.copyto(canvas, behind)
        paint(canvas, layers, number)
        picture = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
        yield picture, tuple(FacePositions(*(tuple(place[number]) for place in person)) for person in places)


def _background(picture: UInt8[np.ndarray, "H W 3"], wall: Wall, aspect: float, scale: float, x: float, y: float) -> None:
    """Fills the picture with the wall. It is out of focus: a pixel of the final size is as fine as it need be."""
    height, width = (side // SUPERSAMPLING for side in picture.shape[:2])
    step = DETAIL * SUPERSAMPLING / scale  # pixels of the wall per final pixel
    corner = [MARGIN * DETAIL - place * DETAIL / scale + step / 2 - 0.5 for place in (x, y)]
    matrix = np.array([[step, 0, corner[0]], [0, step, corner[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    small = cv2.warpAffine(room.painted(wall, aspect), matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    cv2.resize(small, (width * SUPERSAMPLING, height * SUPERSAMPLING), dst=picture, interpolation=cv2.INTER_NEAREST)
