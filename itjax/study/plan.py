"""What a study shows, and the key that says which video is by which method. Opens no video and writes no file."""

import itertools
import random
import secrets
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from itjax.errors import UserError
from itjax.input_files import PathLike, read_json

KEY_FORMAT = "itjax-study key 1"
MOST_REPEATS, ITEMS_PER_REPEAT = 3, 4  # at most 3 items are shown twice, and none if there are fewer than 4


class Question(NamedTuple):
    """A question of the page. `id` names it in answers, `title` in tables, and `text` is what the rater reads."""

    id: str
    title: str
    text: str


QUESTIONS = (  # the first two are those of the paper's Table 4
    Question("lips", "lip sync", "Whose lips follow the speech best?"),
    Question("body", "body sync", "Whose head, face and body move with the speech best?"),
    Question("identity", "identity", "Who stays the same person best, without changes of face, hair or clothes?"),
    Question("naturalness", "naturalness", "Which looks most like a real recording?"),
)


class Item(NamedTuple):
    """Videos that are shown and ranked together.

    Attributes:
        name: name of the videos' files, without the suffix.
        videos: {random name: method}.
        repeats: the item shown a second time, to see whether the rater answers alike; "" if it is shown for the first.
    """

    name: str
    videos: dict[str, str]
    repeats: str


class Key(NamedTuple):
    """What the page does not tell: the methods. `items` is {random name: item}."""

    study: str
    title: str
    methods: tuple[str, ...]
    items: dict[str, Item]


def make_plan(title: str, methods: Sequence[str], names: Sequence[str], per_item: int, seed: int) -> Key:
    """A study of all `names`, each with `per_item` of the methods, and of some repetitions.

    `seed` determines which methods are shown together and what is repeated. Random names are new each time: else anyone
    could find the methods by making the same study again.

    Raises:
        UserError: if there are too few items to show every method.
    """
    if len(names) * per_item < len(methods):
        needed = -(-len(methods) // per_item)
        raise UserError(
            f"{len(names)} items with {per_item} videos each cannot show all {len(methods)} methods: at least {needed} are "
            "needed"
        )
    rng = random.Random(seed)
    shown = balanced(len(names), methods, per_item, rng)
    items = {
        secrets.token_hex(8): Item(name, {secrets.token_hex(8): method for method in together}, "")
        for name, together in zip(names, shown, strict=True)
    }
    repeated = rng.sample(list(items), min(MOST_REPEATS, len(items) // ITEMS_PER_REPEAT))
    repetitions = {secrets.token_hex(8): items[item]._replace(repeats=item) for item in repeated}
    return Key(secrets.token_hex(8), title, tuple(methods), items | repetitions)


def balanced(count: int, methods: Sequence[str], size: int, rng: random.Random) -> list[tuple[str, ...]]:
    """`count` subsets of `size` methods: all methods equally often (but for one), all pairs as equally as possible."""
    subsets = list(itertools.combinations(methods, size))
    used: Counter[str] = Counter()
    met: Counter[tuple[str, ...]] = Counter()
    chosen = []
    for _ in range(count):
        rng.shuffle(subsets)  # among equals, any
        best = min(subsets, key=lambda s: (sum(used[m] for m in s), sum(met[p] for p in itertools.combinations(s, 2))))
        used.update(best)
        met.update(itertools.combinations(best, 2))
        chosen.append(best)
    return chosen


def key_to_json(key: Key) -> dict[str, Any]:
    """The content of a key's file."""
    items = {name: item._asdict() for name, item in key.items.items()}
    return {"format": KEY_FORMAT, "study": key.study, "title": key.title, "methods": list(key.methods), "items": items}


def read_key(path: PathLike) -> Key:
    """Reads a key's file.

    Raises:
        UserError: if it cannot be read, or is not a key as `key_to_json` makes it.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != KEY_FORMAT:
        raise UserError(f"{path}: this is not the key of a study. `itjax study make` writes it next to the study's folder.")
    if not _is_key(content):
        raise UserError(f"{path}: the key is damaged or was edited. Use the file as `itjax study make` wrote it.")
    items = {name: Item(**item) for name, item in content["items"].items()}
    return Key(content["study"], content["title"], tuple(content["methods"]), items)


def _is_key(content: dict[str, Any]) -> bool:
    study, title, methods, items = (content.get(field) for field in ("study", "title", "methods", "items"))
    if not isinstance(study, str) or not isinstance(title, str) or not isinstance(items, dict):
        return False
    if not _are_texts(methods) or not all(_is_item(item, methods, items) for item in items.values()):
        return False
    return len(set(methods)) == len(methods) >= 2 and len({len(item["videos"]) for item in items.values()}) == 1


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_item(value: Any, methods: list[str], items: dict[str, Any]) -> bool:
    if not isinstance(value, dict) or value.keys() != set(Item._fields) or not isinstance(value["videos"], dict):
        return False
    shown, original = list(value["videos"].values()), value["repeats"]
    if not isinstance(value["name"], str) or not _are_texts(shown) or not isinstance(original, str):
        return False
    known = len(shown) >= 2 and set(shown) <= set(methods) and len(set(shown)) == len(shown)
    # what is repeated has the same videos
    return known and (not original or (original in items and items[original] == value | {"repeats": ""}))


def key_path(folder: Path) -> Path:
    """Where the key of the study in `folder` is: next to it, so that it is not handed out with it."""
    return folder.with_name(f"{folder.name}.key.json")
