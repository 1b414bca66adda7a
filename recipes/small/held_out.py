"""The clips on which the small model is measured, of people, voices and sentences kept out of training."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from PIL import Image

from itjax.demo.draw import HEARD
from itjax.evaluation.videos import FrameReader
from itjax.media.containers import SAMPLE_RATE
from itjax.media.video_file import write_video
from itjax.synthetic import clip as clips
from itjax.synthetic.people import HAIRS, WALLS
from itjax.synthetic.source import person_boxes
from itjax.synthetic.splits import Split

SEED, SIDE = 2026, 64
SAME_COLOR = 30  # levels (Euclidean, RGB): pixels of a picture that show a part of that colour


class ClipSet(NamedTuple):
    """What the model card tells of: how many clips of how many seconds, with how many persons each."""

    clips: int
    seconds: float
    persons: int


SETS = {
    "portrait": ClipSet(12, 4.0, 1), "dubbed": ClipSet(12, 4.0, 1), "two": ClipSet(8, 6.0, 2),
    "minute": ClipSet(3, 60.0, 1), "prompt": ClipSet(12, 4.0, 1),
}  # fmt: skip


def draw(folder: Path, name: str, count: int, split: Split) -> None:
    """The clips of a set with their truth. In those to be dubbed, each truth hears the next clip."""
    _, seconds, persons = SETS[name]
    width = SIDE * persons
    made = [clips.make((SEED, number), seconds, SIDE, width, persons, split) for number in range(count)]
    for part in ("source", "sound", "truth", "another"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    truths = []
    for number, clip in enumerate(made):
        drawn = list(clips.frames(clip))
        pictures, seen = np.stack([picture for picture, _ in drawn]), [places for _, places in drawn]
        truths.append(clips.truth(clip, seen))
        stem = f"{name}{number:02d}"
        write_video(folder / "source" / f"{stem}.mp4", pictures, clip.sound)
        Image.fromarray(pictures[0]).save(folder / "source" / f"{stem}.png")
        for person, said in enumerate(clip.spoken):
            soundfile.write(folder / "sound" / f"{stem}.{person + 1}.wav", said.speech.samples, SAMPLE_RATE)
        heads = np.array([[places[person].head_box for places in seen] for person in range(persons)])
        known = {"prompt": clip.scene.prompt, "boxes": person_boxes(heads, SIDE, width)}
        if name == "prompt":
            known |= contradiction(clip)
        (folder / "source" / f"{stem}.json").write_text(json.dumps(known))
    for number, truth in enumerate(truths):
        other = truths[(number + 1) % count]["people"][0]
        heard = [truth["people"][0] | {key: other[key] for key in HEARD}, *truth["people"][1:]]
        swapped = truth | {"people": heard}
        of_made, of_another = (swapped, truth) if name == "dubbed" else (truth, swapped)
        (folder / "truth" / f"{name}{number:02d}.json").write_text(json.dumps(of_made))
        (folder / "another" / f"{name}{number:02d}.json").write_text(json.dumps(of_another))


def contradiction(clip: clips.Clip) -> dict:
    """A prompt with other colours of hair and wall than the picture has; per part the picture's colour and the prompt's."""
    who, wall = clip.scene.people[0].identity, clip.scene.wall
    prompt, parts = clip.scene.prompt, {}
    hair = next((color for color in HAIRS if f" {color} hair" in prompt), None)
    for part, own, named, colors, words in (
        ("hair", who.hair, hair, HAIRS, "{} hair"), ("wall", wall.color, wall.name, WALLS, "{} wall"),
    ):  # fmt: skip
        if named is None:  # nobody sees the colour of no hair
            continue
        other = max(colors, key=lambda color: np.linalg.norm(np.subtract(colors[color], own)))
        prompt = prompt.replace(words.format(named), words.format(other))
        parts[part] = [own, colors[other]]
    return {"prompt": prompt, "parts": parts}


def obeyed(folder: Path) -> dict[str, list[int]]:
    """Per part: in how many of how many videos its pixels end with the prompt's colour rather than the picture's."""
    counts: dict[str, list[int]] = {}
    for path in sorted((folder / "made").glob("*.mp4")):
        picture = np.asarray(Image.open(folder / "source" / f"{path.stem}.png").convert("RGB"), float)
        last = FrameReader(path).read(200)[-1].astype(float)
        for part, (own, other) in json.loads((folder / "source" / f"{path.stem}.json").read_text())["parts"].items():
            shown = np.linalg.norm(picture - own, axis=-1) < SAME_COLOR
            away = [np.linalg.norm(last[shown].mean(0) - color) for color in (own, other)]
            count = counts.setdefault(part, [0, 0])
            count[0] += int(away[1] < away[0])
            count[1] += 1
    return counts
