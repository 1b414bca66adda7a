"""The scores of a study as Markdown."""

from collections.abc import Sequence

import numpy as np

from itjax.study.answers import Answers
from itjax.study.plan import QUESTIONS, Key
from itjax.study.scores import DRAWS, Interval, Pair, QuestionScores, consistency, score


def report(answers: Sequence[Answers], key: Key) -> str:
    """Average ranks as in the InfiniteTalk paper's Table 4, win rates of all pairs, and the raters' consistency."""
    scores, size = score(answers, key), len(next(iter(key.items.values())).videos)
    num_items = sum(not item.repeats for item in key.items.values())
    titles = [question.title for question in QUESTIONS]
    by_question = [scores[question.id] for question in QUESTIONS]
    ranks = [[method, *(_rank(each.ranks[method]) for each in by_question)] for method in key.methods]
    if len(key.methods) > 2:
        ranks.append(["*Friedman test*", *(_friedman(each) for each in by_question)])
    pairs = [
        [f"{first} before {second}", *(_pair(each.pairs[first, second]) for each in by_question)]
        for first, second in by_question[0].pairs
    ]
    raters = [[each.rater, _percent(consistency(each, key))] for each in answers]
    return "\n\n".join(
        [
            f"# {_cell(key.title)}",
            f"{_count(len(answers), 'rater')}, {_count(num_items, 'item')} with {size} videos each. Average rank from 1 "
            f"(best) to {size}, with its 95 % interval ({DRAWS} bootstrap samples over raters and items).",
            _table(["average rank", *titles], ranks),
            "How often the first method has the better rank, with its 95 % interval, and p of a sign test over raters "
            "(corrected by Holm's method over the pairs of a question).",
            _table(["pair", *titles], pairs),
            "Pairs of videos ordered alike when an item was shown again (50 % by chance). To leave a rater out, leave the "
            "file out.",
            _table(["rater", "consistency"], raters),
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _rank(value: Interval) -> str:
    return f"{value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _pair(pair: Pair) -> str:
    mean, low, high = pair.win_rate
    return "-" if np.isnan(mean) else f"{mean:.0%} [{low:.0%}, {high:.0%}], {_p(pair.p)}"


def _friedman(scores: QuestionScores) -> str:
    return "-" if np.isnan(scores.friedman) else _p(scores.friedman)


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.0%}"
