"""The tables of simulated raters, the statistics by hand-made cases, and answers that are refused."""

import json

import numpy as np
import pytest
from study_parts import METHODS, by_quality, content_of, write_answers

from itjax.errors import UserError
from itjax.study import scores
from itjax.study.__main__ import main
from itjax.study.answers import read_all, read_answers
from itjax.study.plan import Item, Key, key_path, make_plan
from itjax.study.tables import report

NAN = float("nan")
RATER = "0123456789abcdef"
KEY = make_plan("A | study", METHODS, [f"n{i}" for i in range(8)], 3, 0)


def answers_of(tmp_path, rules, key=KEY):
    """Files of raters who answer by these rules."""
    for i, rule in enumerate(rules):
        write_answers(tmp_path / "answers" / f"answers-{i}.json", content_of(key, f"{i:016x}", rule))
    return read_all([tmp_path / "answers"], key)


def at_random(seed):
    rng = np.random.default_rng(seed)
    return lambda question, item, methods: (rng.permutation(len(methods)) + 1).tolist()


def mostly_right(seed):
    """Sees the quality in three of four cases; has no opinion of the body."""
    rng = np.random.default_rng(seed)
    guess = at_random(seed + 100)
    sees = lambda question: question != "body" and rng.random() < 0.75
    return lambda question, *shown: by_quality(question, *shown) if sees(question) else guess(question, *shown)


def test_the_table_has_what_the_raters_see(study, tmp_path, capsys):
    folder, key = study
    answers_of(tmp_path, [by_quality] * 6, key)
    assert main(["score", str(key_path(folder)), str(tmp_path / "answers")]) == 0
    told = capsys.readouterr().out
    assert "# A study\n" in told and "6 raters, 4 items with 3 videos each" in told
    ranks = {method: f"{rank}.00 [{rank}.00, {rank}.00]" for rank, method in enumerate(METHODS, 1)}
    for method, cell in ranks.items():
        assert f"| {method} | {' | '.join([cell] * 4)} |" in told
    # 6 of 6 raters: 2 * 0.5**6 = 0.031, times 3 for the three pairs
    assert f"| good before poor | {' | '.join(['100% [100%, 100%], p = 0.094'] * 4)} |" in told
    assert f"| *Friedman test* | {' | '.join(['p = 0.002'] * 4)} |" in told  # chi-square of 12 with 2 degrees of freedom
    assert all(f"| {i:016x} | 100% |" in told for i in range(6))


def test_what_raters_agree_on_is_told_from_chance(tmp_path):
    found = scores.score(answers_of(tmp_path, [mostly_right(i) for i in range(12)]), KEY)
    lips, body = found["lips"], found["body"]
    assert lips.ranks["good"].high < lips.ranks["medium"].low and lips.ranks["medium"].high < lips.ranks["poor"].low
    assert lips.friedman < 0.001 and all(pair.p < 0.05 and pair.win_rate.low > 0.5 for pair in lips.pairs.values())
    assert all(low < 2 < high for _, low, high in body.ranks.values())
    assert body.friedman > 0.05 and all(pair.p > 0.05 for pair in body.pairs.values())


def test_repetitions_measure_consistency_and_nothing_else(tmp_path):
    reverse = lambda question, item, methods: [4 - rank for rank in by_quality(question, item, methods)]
    contrary = lambda question, item, methods: (reverse if item.repeats else by_quality)(question, item, methods)
    answers = answers_of(tmp_path, [by_quality, contrary, at_random(1)])
    assert [scores.consistency(each, KEY) for each in answers[:2]] == [1.0, 0.0]
    assert 0.2 < scores.consistency(answers[2], KEY) < 0.8
    assert repr(scores.score(answers[:1], KEY)) == repr(scores.score(answers[1:2], KEY))  # NaN is not equal to itself
    single = make_plan("t", METHODS, ["x"], 3, 0)
    assert np.isnan(scores.consistency(answers_of(tmp_path / "b", [by_quality], single)[0], single))


def test_methods_are_compared_where_they_are_shown_together(tmp_path):
    videos = [{"v": "a", "w": "b"}, {"x": "b", "y": "c"}]
    key = Key("s", "t", ("a", "b", "c"), {str(i): Item(f"n{i}", each, "") for i, each in enumerate(videos)})
    rule = lambda question, item, methods: [sorted(methods).index(method) + 1 for method in methods]
    found = scores.score(answers_of(tmp_path, [rule] * 5, key), key)["lips"]
    assert [found.ranks[method].mean for method in "abc"] == [1.0, 1.5, 2.0]
    assert found.pairs["a", "b"].win_rate == (1, 1, 1) and found.pairs["b", "c"].p == 0.125  # 2 · 2 · 0.5**5
    assert np.isnan(found.pairs["a", "c"].win_rate.mean) and np.isnan(found.pairs["a", "c"].p)
    write_answers(tmp_path / "k/answers.json", content_of(key, RATER, rule))
    assert "| a before c | - | - | - | - |" in report(read_all([tmp_path / "k"], key), key)


def test_intervals_cover_as_often_as_they_say():
    """Raters and items with tastes of their own: 95 % intervals contain the truth in about 95 of 100 studies, or more."""
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(100):
        tastes = rng.normal(size=(15, 1, 1)) + rng.normal(size=(1, 12, 1)) + rng.normal(size=(15, 12, 1))
        [(_, low, high)] = scores.intervals(tastes, seed)
        covered.append(low < 0 < high)
    assert np.mean(covered) > 0.88


def test_the_mean_is_over_what_was_ranked():
    values = np.array([[[1.0, NAN], [3.0, NAN]], [[1.0, NAN], [NAN, NAN]]])
    known, unknown = scores.intervals(values)
    assert known.mean == pytest.approx(5 / 3) and 1 <= known.low < known.high <= 3 and np.isnan(unknown).all()


def test_a_rater_counts_once_in_the_sign_test():
    one, other = np.ones((1, 40, 1)), -np.ones((1, 40, 1))
    assert scores.sign_tests(one) == [1.0]  # 40 answers of one rater prove nothing about raters
    assert scores.sign_tests(np.concatenate([one] * 8)) == [pytest.approx(2 * 0.5**8)]
    assert scores.sign_tests(np.concatenate([one, other])) == [1.0]
    undecided = np.array([[[1.0], [-1.0]]])
    assert scores.sign_tests(undecided) == [1.0]


def test_holm_corrects_for_the_number_of_pairs():
    better = np.ones((10, 1, 3))
    better[:2, :, 1] = -1  # 8 of 10: 0.109
    better[:5, :, 2] = -1  # 5 of 10: 1
    assert scores.sign_tests(better) == pytest.approx([3 * 2 * 0.5**10, 2 * 0.109375, 1.0])


def test_friedman_needs_raters_and_methods():
    assert np.isnan(scores.friedman(np.ones((1, 3, 3)))) and np.isnan(scores.friedman(np.ones((5, 3, 2))))
    undecided = np.tile([[[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]], (5, 1, 1))
    assert scores.friedman(undecided) == 1.0


RECORDED = (  # what the page's own code (order.js) wrote, without its line breaks
    '{"format":"itjax-study answers 1","study":"5ca1ab1e5ca1ab1e","rater":"00c0ffee00c0ffee","s'
    'eed":12648430,"answers":[{"item":"a0","shown":["b1","b0"],"ranks":{"lips":[2,1],"body":[2,1],"identity":[1,2],'
    '"naturalness":[2,1]}}],"checksum":"6e9b721c"}'
)
RECORDED_KEY = Key("5ca1ab1e5ca1ab1e", "t", ("x", "y"), {"a0": Item("n", {"b0": "x", "b1": "y"}, "")})


def test_the_pages_answers_are_read(tmp_path):
    (tmp_path / "a.json").write_text(RECORDED)
    rater, ranks = read_answers(tmp_path / "a.json", RECORDED_KEY)
    assert rater == "00c0ffee00c0ffee" and ranks["a0"]["lips"] == {"b0": 1, "b1": 2} != ranks["a0"]["identity"]
    (tmp_path / "a.json").write_text(json.dumps(json.loads(RECORDED), indent=4))
    assert read_answers(tmp_path / "a.json", RECORDED_KEY) == (rater, ranks)
    told = report(read_all([tmp_path], RECORDED_KEY), RECORDED_KEY)  # two methods, no repetitions
    assert "1 rater, 1 item with 2 videos each" in told and "Friedman" not in told and "| 00c0ffee00c0ffee | - |" in told


@pytest.mark.parametrize(
    "change", [("[2,1]", "[1,2]"), ("ffee", "ffff"), ('"b1"', '"b2"'), ('"6e9b721c"', "null"), ("430", "430.0")]
)
def test_edited_answers_are_refused(change, tmp_path):
    (tmp_path / "a.json").write_text(RECORDED.replace(*change))
    with pytest.raises(UserError, match=r"a\.json: the answers are damaged or were edited"):
        read_answers(tmp_path / "a.json", RECORDED_KEY)


def damages():
    first = lambda content: content["answers"][0]
    return {
        "no rater": lambda content: content.pop("rater"),
        "a rater that is no number": lambda content: content.update(rater="\x1b[2J"),
        "no answers": lambda content: content.pop("answers"),
        "one missing": lambda content: content["answers"].pop(),
        "one twice": lambda content: content["answers"].append(first(content)),
        "an unknown item": lambda content: first(content).update(item="x"),
        "an item that is a list": lambda content: first(content).update(item=[]),
        "an answer that is text": lambda content: content["answers"].append("x"),
        "another video": lambda content: first(content)["shown"].append("x"),
        "a video that is a number": lambda content: first(content).update(shown=[1, 2, 3]),
        "no ranks": lambda content: first(content).pop("ranks"),
        "another question": lambda content: first(content)["ranks"].update(beauty=[1, 2, 3]),
        "a tie": lambda content: first(content)["ranks"].update(lips=[1, 1, 2]),
        "a rank too many": lambda content: first(content)["ranks"].update(lips=[1, 2, 3, 4]),
        "a rank that is true": lambda content: first(content)["ranks"].update(lips=[True, 2, 3]),
        "a rank that is text": lambda content: first(content)["ranks"].update(lips=["1", 2, 3]),
        "ranks that are text": lambda content: first(content)["ranks"].update(lips="123"),
    }


@pytest.mark.parametrize("damage", damages())
def test_wrong_answers_are_refused_even_with_their_checksum(damage, tmp_path):
    content = content_of(KEY, RATER, by_quality)
    damages()[damage](content)
    path = write_answers(tmp_path / "a" / "a.json", content)
    with pytest.raises(UserError, match=r"a\.json: the answers are damaged or were edited"):
        read_answers(path, KEY)


def test_answers_that_do_not_belong_are_refused(study, tmp_path, capsys):
    folder, key = study
    run = lambda *paths: (main(["score", *map(str, paths)]), capsys.readouterr())
    path = write_answers(tmp_path / "a/x.json", content_of(key, RATER, by_quality))
    copy = tmp_path / "a/y.json"
    copy.write_bytes(path.read_bytes())
    for given, expected in (
        ([key_path(folder), tmp_path / "a"], f"{copy}: the answers of rater {RATER} are already given in {path}"),
        ([key_path(folder), path, path], "are already given in"),
        ([key_path(folder), key_path(folder)], "not a file of answers"),
        ([path, path], "not the key of a study"),
        ([key_path(folder), folder], "there are no answers (*.json) in this folder"),
        ([key_path(folder), tmp_path / "none.json"], "none.json: no such file"),
        ([key_path(folder), write_answers(tmp_path / "b/z.json", content_of(KEY, RATER, by_quality))], "to another study"),
    ):
        status, told = run(*given)
        assert status == 2 and expected in told.err and told.err.count("\n") == 1 and not told.out
    path.write_text(path.read_text()[:-30])
    status, told = run(key_path(folder), path)
    assert status == 2 and "x.json: cannot be read as JSON" in told.err
