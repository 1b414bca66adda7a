"""What a drawn person is (identity), and how head, eyes and brows are held (pose and look)."""

from typing import NamedTuple

from itjax.synthetic.mouth import Track

Color = tuple[int, int, int]  # RGB


class Identity(NamedTuple):
    """The fixed appearance of a person. Lengths are in units of half the head's height."""

    kind: str  # the combination of all factors that have names: it belongs to one split
    woman: bool
    skin: Color
    hair: Color
    hair_style: str  # "short", "curly", "tied", "long" or "no"
    eyes: Color
    lips: Color
    clothes: Color
    collar: str  # "round", "shirt" or "jacket"
    glasses: bool
    beard: bool
    freckles: bool
    earrings: bool
    parting: float  # of the hair: -1 on the left, 1 on the right
    fringe: float  # how far the hair comes down the forehead, 0..1
    width: float  # of the head, relative to its height
    jaw: float  # 0 pointed, 1 square
    ear: float  # scale
    eye_distance: float
    eye_size: float
    brow: float  # thickness
    nose: float  # length
    nose_width: float
    mouth: float  # half width at rest


class Pose(NamedTuple):
    """Head pose. Angles in radians; `x`, `y` (centre) and `size` (half height) in world units."""

    yaw: Track
    pitch: Track
    roll: Track
    x: Track
    y: Track
    size: Track


class Look(NamedTuple):
    """Motion in a face: eye opening 0..1, gaze -1..1, brows -1..1, corners of the mouth -1..1."""

    open: Track
    gaze_x: Track
    gaze_y: Track
    brows: Track
    smile: Track


def mix(color: Color, other: Color, share: float) -> Color:
    """Linear mix: `share` 0 gives `color`, 1 gives `other`."""
    return tuple(round(a + (b - a) * share) for a, b in zip(color, other, strict=True))  # type: ignore[return-value]


def darken(color: Color, by: float) -> Color:
    """Darkens a colour: `by` 0 keeps it, 1 gives black; negative values lighten it."""
    return mix(color, (0, 0, 0) if by > 0 else (255, 255, 255), abs(by))
