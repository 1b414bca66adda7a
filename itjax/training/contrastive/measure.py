"""Measures of the encoders on people kept out of training: retrieval of prompts, and linear read-outs of colours."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from itjax.training.contrastive.scenes import Drawing, Drawn, Tokens
from itjax.training.contrastive.settings import ContrastiveTraining
from itjax.training.contrastive.step import Towers, normalised

# N pictures · D width

OTHERS = 32  # prompts from which a picture's own is to be told
RIDGE = 1e-2  # of the read-outs, for standardised features
FIT_SEED, HELD_OUT_SEED = 10**6, 10**6 + 1  # scenes that no example is drawn from
FIT_SCENES, HELD_OUT_SCENES = 1024, 256


class Figures(NamedTuple):
    """Shares of right answers: a picture's prompt among 32 others, the colours of hair and wall by linear read-outs."""

    retrieval: float
    hair: float
    wall: float


class Scenes(NamedTuple):
    """Scenes of one person: those that read-outs are fitted on (of training people), and held-out ones."""

    fit: list[Drawn]
    held_out: list[Drawn]


def scenes(drawing: Drawing, split: str, fit: int = FIT_SCENES, held_out: int = HELD_OUT_SCENES) -> Scenes:
    """Draws the scenes of a measurement on `split`."""
    return Scenes(
        drawing.all_of(FIT_SEED, fit, 1, "train"),
        drawing.all_of(HELD_OUT_SEED, held_out, 1, split),  # type: ignore[arg-type]
    )


def evaluate(settings: ContrastiveTraining, parameters: dict, drawn: Scenes, tokens: Tokens) -> Figures:
    """The figures of `Towers` with these parameters."""
    fit = _features(settings, parameters, drawn.fit)
    seen = _features(settings, parameters, drawn.held_out)
    read = lambda name: _read_out(fit, _names(drawn.fit, name), seen, _names(drawn.held_out, name))
    return Figures(_retrieval(settings, parameters, drawn.held_out, tokens), read("hair"), read("wall"))


def _names(drawn: Sequence[Drawn], name: str) -> list[str]:
    return [getattr(each, name) for each in drawn]


@partial(jax.jit, static_argnums=(0, 1))
def _apply(settings: ContrastiveTraining, method: str, parameters: dict, values: Array) -> Array:
    values = values if method == "prompts" else normalised(values, settings.clip.image)
    return Towers(settings).apply({"params": parameters}, values, method=method)  # type: ignore[return-value]


def _features(settings: ContrastiveTraining, parameters: dict, drawn: Sequence[Drawn]) -> Float[np.ndarray, "N D"]:
    return np.asarray(_apply(settings, "features", parameters, np.stack([each.stills[0] for each in drawn])))


def _retrieval(settings: ContrastiveTraining, parameters: dict, drawn: Sequence[Drawn], tokens: Tokens) -> float:
    """The share of pictures that are nearer to their prompts than to those of the `OTHERS` next scenes, which differ."""
    pictures = np.asarray(_apply(settings, "pictures", parameters, np.stack([each.stills[0] for each in drawn])))
    prompts = np.asarray(_apply(settings, "prompts", parameters, tokens(_names(drawn, "prompt"))))
    likeness = pictures @ prompts.T
    right = []
    for number, each in enumerate(drawn):
        order = [(number + 1 + other) % len(drawn) for other in range(len(drawn) - 1)]
        others = [other for other in order if drawn[other].prompt != each.prompt][:OTHERS]
        right.append(likeness[number, number] > likeness[number, others].max())
    return float(np.mean(right))


def _read_out(
    fit: Float[np.ndarray, "N D"], names: Sequence[str], seen: Float[np.ndarray, "M D"], truth: Sequence[str]
) -> float:
    """The share of names that are right by a ridge regression of one-hot names, fitted on other pictures."""
    kinds = sorted(set(names))
    mean, deviation = fit.mean(0), fit.std(0) + 1e-6
    design = lambda x: np.hstack([(x - mean) / deviation, np.ones((len(x), 1))])
    x, one_hot = design(fit), np.array([[name == kind for kind in kinds] for name in names], np.float64)
    weights = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ one_hot)
    chosen: Int[np.ndarray, " M"] = np.argmax(design(seen) @ weights, axis=1)
    return float(np.mean([kinds[kind] == name for kind, name in zip(chosen, truth, strict=True)]))
