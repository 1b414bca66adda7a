"""Average ranks, win rates and tests from the answers to a study. The raters are the independent unit of all tests."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from itjax.study.answers import Answers
from itjax.study.plan import QUESTIONS, Key

# R raters · I items without repetitions · M methods · K any values (of methods, or of pairs)

DRAWS = 2000  # of the bootstrap


class Interval(NamedTuple):
    """A mean with its 95 % confidence interval; NaN if there is no value."""

    mean: float
    low: float
    high: float


class Pair(NamedTuple):
    """How often the first method has the better rank, and the p-value of a sign test (see `sign_tests`)."""

    win_rate: Interval
    p: float


class QuestionScores(NamedTuple):
    """Of one question: {method: average rank}, {(first, second): pair}, and the p-value of Friedman's test.

    `friedman` is NaN where the test does not apply: with two methods (see the sign test) or one rater.
    """

    ranks: dict[str, Interval]
    pairs: dict[tuple[str, str], Pair]
    friedman: float


def score(answers: Sequence[Answers], key: Key) -> dict[str, QuestionScores]:
    """{question: its scores}. Repetitions do not count."""
    return {question.id: _score(ranks_of(answers, key, question.id), key.methods) for question in QUESTIONS}


def ranks_of(answers: Sequence[Answers], key: Key, question: str) -> Float[np.ndarray, "R I M"]:
    """The ranks (1 is the best) in a question; NaN for methods that an item does not show."""
    items = [name for name, item in key.items.items() if not item.repeats]
    ranks = np.full((len(answers), len(items), len(key.methods)), np.nan)
    for r, rater in enumerate(answers):
        for i, name in enumerate(items):
            for video, rank in rater.ranks[name][question].items():
                ranks[r, i, key.methods.index(key.items[name].videos[video])] = rank
    return ranks


def _score(ranks: Float[np.ndarray, "R I M"], methods: Sequence[str]) -> QuestionScores:
    pairs = list(itertools.combinations(range(len(methods)), 2))
    first, second = (ranks[..., list(side)] for side in zip(*pairs, strict=True))
    # signs keep NaN: +1 if the first is better, -1 if the second is; there are no ties
    better = np.sign(second - first)
    compared = [Pair(rate, p) for rate, p in zip(intervals((better + 1) / 2), sign_tests(better), strict=True)]
    by_pair = {(methods[a], methods[b]): pair for (a, b), pair in zip(pairs, compared, strict=True)}
    return QuestionScores(dict(zip(methods, intervals(ranks), strict=True)), by_pair, friedman(ranks))


def intervals(values: Float[np.ndarray, "R I K"], seed: int = 0) -> list[Interval]:
    """The mean of each of the K values over raters and items, ignoring NaN, with its interval.

    Raters and items are drawn with replacement, independently of each other: the answers of a rater are alike, and so are
    the answers to an item (the pigeonhole bootstrap of Owen, 2007, which is rather too wide than too narrow).
    """
    rng = np.random.default_rng(seed)
    draw = lambda count: rng.multinomial(count, np.full(count, 1 / count), DRAWS).astype(np.float64)
    raters, items = draw(values.shape[0]), draw(values.shape[1])
    found = []
    for each in np.moveaxis(values, 2, 0):
        known = ~np.isnan(each)
        if not known.any():
            found.append(Interval(np.nan, np.nan, np.nan))
            continue
        total, count = (np.einsum("bi,bi->b", raters @ part, items) for part in (np.where(known, each, 0), known))
        means = total[count > 0] / count[count > 0]  # a draw may have no item with this method
        low, high = np.quantile(means, (0.025, 0.975))
        found.append(Interval(float(each[known].mean()), float(low), float(high)))
    return found


def sign_tests(better: Float[np.ndarray, "R I K"]) -> list[float]:
    """p-values of two-sided sign tests, one per pair, corrected for their number by Holm's method; NaN without answers.

    `better` is +1 where a rater ranked the pair's first method better, -1 where the second, NaN where the item does not
    show both. Each rater counts once, for the method that wins in the majority of items, or not at all.
    """
    balance = np.nansum(better, axis=1)
    first, second = (balance > 0).sum(0), (balance < 0).sum(0)
    p = [stats.binomtest(int(a), int(a + b)).pvalue if a + b else 1.0 for a, b in zip(first, second, strict=True)]
    compared = [k for k in range(better.shape[2]) if not np.isnan(better[..., k]).all()]
    corrected, largest = [np.nan] * len(p), 0.0
    for place, k in enumerate(sorted(compared, key=lambda k: p[k])):
        largest = max(largest, min(1.0, p[k] * (len(compared) - place)))
        corrected[k] = float(largest)
    return corrected


def friedman(ranks: Float[np.ndarray, "R I M"]) -> float:
    """p-value of Friedman's test that all methods are alike; a block is a rater's mean rank of each method.

    By the chi-square approximation, which is coarse for fewer than ten raters. NaN for one rater or two methods, where the
    test does not apply.
    """
    if ranks.shape[0] < 2 or ranks.shape[2] < 3:
        return float("nan")
    blocks = np.nanmean(ranks, axis=1)
    if (blocks == blocks[:, :1]).all():
        return 1.0  # nobody prefers anything
    return float(stats.friedmanchisquare(*blocks.T).pvalue)


def consistency(answers: Answers, key: Key) -> float:
    """Fraction of pairs of videos that a rater orders alike when an item is repeated; 0.5 by chance, NaN without any."""
    alike = [
        (first[a] < first[b]) == (again[a] < again[b])
        for name, item in key.items.items()
        if item.repeats
        for question in QUESTIONS
        for first, again in [(answers.ranks[item.repeats][question.id], answers.ranks[name][question.id])]
        for a, b in itertools.combinations(item.videos, 2)
    ]
    return float(np.mean(alike)) if alike else float("nan")
