"""A small study: videos of three methods, and raters who answer by a rule."""

import json

import numpy as np

from itjax.media.video_file import write_video
from itjax.study.answers import ANSWERS_FORMAT, checksum
from itjax.study.plan import QUESTIONS

METHODS, NAMES = ("good", "medium", "poor"), ("one", "two", "three", "four")
SOUND = np.sin(np.arange(8000) / 10).astype(np.float32)


def write_methods(folder, methods=METHODS, names=NAMES):
    for level, method in enumerate(methods):
        for name in names:
            frames = np.full((12, 32, 32, 3), 60 * level + 20, np.uint8)
            frames[:, 8:16, :, 0] = np.linspace(0, 255, 12, dtype=np.uint8)[:, None, None]
            write_video(folder / method / f"{name}.mp4", frames, SOUND)


def content_of(key, rater, rank_of):
    """The content of a rater's file: rank_of(question, item, methods) -> ranks from 1."""
    answers = []
    for number, item in key.items.items():
        shown = list(reversed(item.videos))  # not sorted by name: names are new each time, and raters who guess would differ
        methods = [item.videos[video] for video in shown]
        ranks = {question.id: rank_of(question.id, item, methods) for question in QUESTIONS}
        answers.append({"item": number, "shown": shown, "ranks": ranks})
    return {"format": ANSWERS_FORMAT, "study": key.study, "rater": rater, "seed": 1, "answers": answers}


def by_quality(question, item, methods):
    """The ranks of a rater who sees all differences."""
    return [sorted(methods, key=METHODS.index).index(method) + 1 for method in methods]


def write_answers(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | {"checksum": checksum(content)}, indent=1))
    return path
