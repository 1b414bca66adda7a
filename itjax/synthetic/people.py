"""Random persons: the factors of an identity, what a prompt says of them, and which combinations belong to which split.

The factors that have names (sex, skin, hair, eyes, glasses, beard, freckles, earrings) make up a person's kind. Every kind
belongs to one split, by its hash, so that no two splits share one.
"""

import numpy as np

from itjax.synthetic.face import Color, Identity, darken, mix
from itjax.synthetic.splits import Split, split_of

SKINS = {
    "pale": (244, 214, 196), "light": (232, 190, 162), "tan": (205, 155, 118), "brown": (150, 103, 74),
    "dark": (98, 66, 50),
}  # fmt: skip
HAIRS = {
    "black": (34, 28, 30), "brown": (96, 60, 38), "blond": (222, 184, 110), "red": (172, 76, 40), "grey": (158, 158, 162),
}  # fmt: skip
EYES = {"blue": (70, 110, 160), "brown": (92, 64, 42), "green": (88, 128, 92), "dark": (52, 44, 44)}
COLORS = {
    "red": (190, 60, 58), "orange": (224, 140, 62), "yellow": (228, 200, 92), "green": (86, 150, 94), "blue": (72, 112, 184),
    "purple": (126, 88, 164), "white": (228, 228, 224), "grey": (138, 142, 148),
}  # fmt: skip
WALLS = {name: darken(mix(color, (128, 128, 124), 0.25), -0.25) for name, color in COLORS.items()}
COLLARS = {"round": "top", "shirt": "shirt", "jacket": "jacket"}


def identity(rng: np.random.Generator, split: Split = "train") -> tuple[Identity, str]:
    """A random identity of the split, and its description in a prompt."""
    while True:
        who, words = _identity(rng)
        if split_of(who.kind) == split:
            return who, words


def _identity(rng: np.random.Generator) -> tuple[Identity, str]:
    woman = bool(rng.random() < 0.5)
    pick = lambda choices: choices[rng.integers(len(choices))]
    skin_name, hair, eyes = pick(list(SKINS)), pick(list(HAIRS)), pick(list(EYES))
    skin, chance = SKINS[skin_name], rng.random()
    if woman:
        style = "long" if chance < 0.5 else "tied" if chance < 0.7 else "curly" if chance < 0.85 else "short"
    else:
        style = "no" if chance < 0.2 else "curly" if chance < 0.38 else "short"
    glasses, beard = bool(rng.random() < 0.3), bool(not woman and rng.random() < 0.35)
    freckles = bool(skin_name in ("pale", "light") and rng.random() < 0.3)
    earrings = bool(woman and style != "long" and rng.random() < 0.6)  # long hair covers them
    worn, collar = pick(list(COLORS)), pick(list(COLLARS))
    extras = [
        words
        for present, words in (
            (freckles, "freckles"), (earrings, "earrings"), (glasses, "glasses"), (beard, "a beard"),
        )
        if present
    ]  # fmt: skip
    sex, hair_words = "woman" if woman else "man", "no hair" if style == "no" else f"{style} {hair} hair"
    who = Identity(
        kind=", ".join([sex, f"{skin_name} skin", hair_words, f"{eyes} eyes", *extras]),
        woman=woman,
        skin=near(rng, skin, 8.0),
        hair=near(rng, HAIRS[hair], 8.0),
        hair_style=style,
        eyes=EYES[eyes],
        lips=mix(skin, (188, 62, 72), 0.75 if woman else 0.55),
        clothes=near(rng, COLORS[worn], 10.0),
        collar=collar,
        glasses=glasses,
        beard=beard,
        freckles=freckles,
        earrings=earrings,
        parting=rng.uniform(-1, 1),
        fringe=rng.uniform(0, 1),
        width=rng.uniform(0.70, 0.82),
        jaw=rng.uniform(0.0, 0.6) if woman else rng.uniform(0.3, 1.0),
        ear=rng.uniform(0.85, 1.15),
        eye_distance=rng.uniform(0.29, 0.35),
        eye_size=rng.uniform(0.15, 0.19),
        brow=rng.uniform(0.04, 0.07) if woman else rng.uniform(0.06, 0.09),
        nose=rng.uniform(0.0, 0.08),
        nose_width=rng.uniform(0.85, 1.2),
        mouth=rng.uniform(0.26, 0.33),
    )
    with_ = [hair_words, f"{eyes} eyes", *extras]
    clothes = f"{'an' if worn[0] in 'aeiou' else 'a'} {worn} {COLLARS[collar]}"
    return who, f"a {sex} with {', '.join(with_[:-1])} and {with_[-1]} in {clothes}"


def near(rng: np.random.Generator, color: Color, spread: float) -> Color:
    """A random colour near another, of almost the same hue; `spread` in levels."""
    brightness = rng.normal(0, spread)
    return tuple(int(np.clip(c + brightness + rng.normal(0, spread / 3), 0, 255)) for c in color)  # type: ignore[return-value]


def wall_color(rng: np.random.Generator) -> tuple[str, Color]:
    """A light colour for a wall, and its name."""
    name = list(WALLS)[rng.integers(len(WALLS))]
    return name, near(rng, WALLS[name], 6.0)
