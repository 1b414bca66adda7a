"""Drawn stills and their prompts, without speech: mouths have random shapes. Drawn by processes, ahead of the steps."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from itjax.synthetic import scene
from itjax.synthetic.mouth import SHAPES, Mouth
from itjax.synthetic.people import HAIRS
from itjax.synthetic.splits import SPLITS, Split

# B batch · K stills of a scene · H W pixels

STILLS = 2  # of a scene
NUM_FRAMES = 200  # of which a scene's stills are random ones
SIDE = 64  # height of the pictures; that of a person is as wide, that of two persons twice as wide
SCENES_PER_TASK = 32


class Drawn(NamedTuple):
    """Stills of one scene, its prompt, and what a read-out looks for: names of the colours (hair of the first person)."""

    stills: UInt8[np.ndarray, "K H W 3"]
    prompt: str
    hair: str
    wall: str


def draw(seed: tuple[int, ...], persons: int, split: Split, side: int = SIDE) -> Drawn:
    """The scene of a seed."""
    rng = np.random.default_rng((*seed, persons, SPLITS.index(split)))
    shown = scene.scene(rng, NUM_FRAMES, persons, float(persons), split=split)
    chosen = rng.choice(NUM_FRAMES, STILLS, replace=False)
    part = lambda tracks: type(tracks)(*(np.asarray(track)[chosen] for track in tracks))
    people = tuple(member._replace(pose=part(member.pose), look=part(member.look)) for member in shown.people)
    mouths = tuple(_mouths(rng, STILLS) for _ in people)
    frames = scene.frames(shown._replace(people=people, camera=part(shown.camera)), mouths, side, side * persons)
    kind = people[0].identity.kind
    hair = "no" if "no hair" in kind else next(name for name in HAIRS if f"{name} hair" in kind)
    return Drawn(np.stack([picture for picture, _ in frames]), shown.prompt, hair, shown.wall.name)


def _mouths(rng: np.random.Generator, count: int) -> Mouth:
    """Random mixtures of two sounds' mouths, as they are while one sound becomes the next."""
    shapes = np.array(list(SHAPES.values()))
    first, second = (shapes[rng.integers(len(shapes), size=count)] for _ in range(2))
    share = rng.random((count, 1))
    return Mouth(*(share * first + (1 - share) * second).T)


def _draw_many(seed: int, numbers: range, persons: int, split: Split, side: int) -> list[Drawn]:
    return [draw((seed, number), persons, split, side) for number in numbers]


class Drawing:
    """Draws scenes in processes. A scene depends on seed and number only, not on the number of processes."""

    def __init__(self, processes: Executor, side: int = SIDE):
        self._pool, self._side = processes, side

    def begin(self, seed: int, numbers: range, persons: int, split: Split) -> Future[list[Drawn]]:
        """Begins to draw these scenes."""
        return self._pool.submit(_draw_many, seed, numbers, persons, split, self._side)

    def all_of(self, seed: int, count: int, persons: int, split: Split) -> list[Drawn]:
        """The first `count` scenes of a seed."""
        tasks = [self.begin(seed, numbers, persons, split) for numbers in _tasks(0, count)]
        return [drawn for task in tasks for drawn in task.result()]


def _tasks(start: int, stop: int) -> list[range]:
    return [range(first, min(first + SCENES_PER_TASK, stop)) for first in range(start, stop, SCENES_PER_TASK)]


Tokens = Callable[[Sequence[str]], Int[np.ndarray, "n X"]]


class Batch(NamedTuple):
    """Stills and the rows of their prompts."""

    stills: UInt8[np.ndarray, "B H W 3"]
    ids: Int[np.ndarray, "B X"]


class Pool:
    """Scenes of training people that grow with the steps. Step and seed alone determine a batch.

    A resumed run draws the scenes again that were in use. `tokens` turns prompts into ids.
    """

    def __init__(self, drawing: Drawing, tokens: Tokens, seed: int, persons: int, growth: tuple[int, int, int]):
        """`growth`: scenes in use at the first step, more at each step, and at most."""
        self._drawing, self._tokens, self._seed, self._persons = drawing, tokens, seed, persons
        self._growth = growth
        self._begun: deque[Future[list[Drawn]]] = deque()
        self._stills: list[UInt8[np.ndarray, "n K H W 3"]] = []
        self._ids: list[Int[np.ndarray, "n X"]] = []

    def in_use(self, step: int) -> int:
        """Number of scenes from which the batch of a step is chosen: whole tasks."""
        first, more, most = self._growth
        return max(SCENES_PER_TASK, min(most, first + more * step) // SCENES_PER_TASK * SCENES_PER_TASK)

    def batch(self, step: int, count: int) -> Batch:
        """`count` stills, each of another scene."""
        scenes = self._drawn(self.in_use(step), ahead=self.in_use(step + 64))
        rng = np.random.default_rng((self._seed, step, self._persons))
        chosen, still = rng.choice(scenes, count, replace=count > scenes), rng.integers(STILLS, size=count)
        task, place = np.divmod(chosen, SCENES_PER_TASK)
        at = list(zip(task, place, still, strict=True))
        return Batch(np.stack([self._stills[t][p, k] for t, p, k in at]), np.stack([self._ids[t][p] for t, p, _ in at]))

    def _drawn(self, scenes: int, ahead: int) -> int:
        """Waits until so many scenes are drawn, and begins those up to `ahead`."""
        for numbers in _tasks((len(self._stills) + len(self._begun)) * SCENES_PER_TASK, ahead):
            self._begun.append(self._drawing.begin(self._seed, numbers, self._persons, "train"))
        while len(self._stills) * SCENES_PER_TASK < scenes:
            drawn = self._begun.popleft().result()
            self._stills.append(np.stack([each.stills for each in drawn]))
            self._ids.append(self._tokens([each.prompt for each in drawn]))
        return scenes
