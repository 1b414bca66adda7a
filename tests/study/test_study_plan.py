"""What is shown together is balanced, and a key comes back as it was written."""

import itertools
import json
import random
from collections import Counter

import pytest

from itjax.errors import UserError
from itjax.study.plan import balanced, key_to_json, make_plan, read_key


@pytest.mark.parametrize(("methods", "size", "count"), [("abcd", 2, 12), ("abcde", 3, 20), ("abcdef", 2, 7), ("abc", 3, 4)])
def test_methods_and_pairs_are_balanced(methods, size, count):
    subsets = balanced(count, methods, size, random.Random(3))
    used = Counter(itertools.chain(*subsets))
    met = Counter(pair for subset in subsets for pair in itertools.combinations(subset, 2))
    assert all(len(set(subset)) == size for subset in subsets)
    assert {*used} == {*methods} and max(used.values()) - min(used.values()) <= 1
    assert max(met.values()) - min(met[pair] for pair in itertools.combinations(methods, 2)) <= 1


def test_the_seed_determines_all_but_the_random_names():
    names = [f"n{i}" for i in range(12)]
    plan = lambda seed: make_plan("t", "abcd", names, 2, seed)
    told = lambda key: [(item.name, *item.videos.values(), bool(item.repeats)) for item in key.items.values()]
    first, again, other = plan(1), plan(1), plan(2)
    assert told(first) == told(again) != told(other)
    assert first.study != again.study and not first.items.keys() & again.items.keys()
    videos = [video for key in (first, again) for item in key.items.values() if not item.repeats for video in item.videos]
    assert len(set(videos)) == len(videos) == 48


@pytest.mark.parametrize(("count", "repeated"), [(1, 0), (3, 0), (4, 1), (8, 2), (12, 3), (100, 3)])
def test_some_items_are_repeated_with_the_same_videos(count, repeated):
    key = make_plan("t", "ab", [f"n{i}" for i in range(count)], 2, 0)
    again = [item for item in key.items.values() if item.repeats]
    assert len(again) == len({item.repeats for item in again}) == repeated and len(key.items) == count + repeated
    assert all(key.items[item.repeats] == item._replace(repeats="") for item in again)


def test_every_method_must_be_shown():
    with pytest.raises(UserError, match="2 items with 2 videos each cannot show all 5 methods: at least 3 are needed"):
        make_plan("t", "abcde", ["x", "y"], 2, 0)


def test_a_key_comes_back(tmp_path):
    key = make_plan("t|ü", "abc", [f"n{i}" for i in range(5)], 3, 0)
    (tmp_path / "k.json").write_text(json.dumps(key_to_json(key)))
    assert read_key(tmp_path / "k.json") == key


def changes():
    def set_item(field, value):
        return lambda content: next(iter(content["items"].values())).update({field: value})

    return {
        "no study": lambda content: content.pop("study"),
        "title": lambda content: content.update(title=3),
        "one method": lambda content: content.update(methods=["a"]),
        "a method twice": lambda content: content["methods"].append("a"),
        "a method as a list": lambda content: content["methods"].append([]),
        "no items": lambda content: content.update(items={}),
        "items": lambda content: content.update(items=[]),
        "an item": lambda content: content["items"].update(x=None),
        "a name": set_item("name", None),
        "videos": set_item("videos", []),
        "an unknown method": set_item("videos", {"x": "a", "y": "q"}),
        "a method that is a list": set_item("videos", {"x": "a", "y": ["b"]}),
        "other numbers of videos": set_item("videos", {"x": "a", "y": "b"}),
        "a repetition of nothing": set_item("repeats", "nothing"),
        "a field more": set_item("more", 1),
    }


@pytest.mark.parametrize("change", changes())
def test_a_damaged_key_is_refused(change, tmp_path):
    content = key_to_json(make_plan("t", "abc", [f"n{i}" for i in range(5)], 3, 0))
    changes()[change](content)
    (tmp_path / "k.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"k\.json: the key is damaged or was edited"):
        read_key(tmp_path / "k.json")


def test_what_is_no_key_is_refused(tmp_path):
    (tmp_path / "k.json").write_text("[1]")
    with pytest.raises(UserError, match="not the key of a study"):
        read_key(tmp_path / "k.json")
