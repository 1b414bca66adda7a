"""Damage to files, JSON and numbers, drawn from a seed."""

import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np

# what a number, a text or a file name is replaced by
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**20, 10**400, 0.5, -0.0, 1e39, -1e300, 1e-320, math.nan, math.inf,
    "", " ", "x", "None", "nan", "-1", "a" * 300, "b" * 1000, "\0", "/", ".", "..", "/dev/zero", "/dev/null",
    "~", "é😀" * 60, "\ud800", "%s%n", "{}", "{steps}", "--", "-x", [], {}, [[]], [None], [1, 2, 3, 4], {"person1": None},
    {"a": {"b": []}},
)  # fmt: skip


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.choice([0, 1, 7, len(data) // 2, len(data) - 1, rng.randrange(len(data))])]


def _flip_bits(rng: random.Random, data: bytes) -> bytes:
    result = bytearray(data)
    beginning = rng.random() < 0.5  # headers are where a bit means most
    for _ in range(rng.choice([1, 1, 3, 20])):
        result[rng.randrange(min(len(data), 200) if beginning else len(data))] ^= 1 << rng.randrange(8)
    return bytes(result)


def _overwrite(rng: random.Random, data: bytes) -> bytes:
    length = rng.choice([1, 4, 8, 64, 4096])
    start = rng.randrange(max(1, min(len(data), rng.choice([64, 4096, len(data)]))))
    fill = rng.choice([b"\0" * length, b"\xff" * length, b"\x7f" + b"\xff" * (length - 1), rng.randbytes(length)])
    return data[:start] + fill + data[start + length :]


def _remove(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice([1, 2, 100, 10_000]) :]


def _insert(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + rng.choice([rng.randbytes(1), rng.randbytes(100), data[: rng.randrange(1, 5000)]]) + data[start:]


def _replace_all(rng: random.Random, data: bytes) -> bytes:
    return rng.choice(
        [b"", b"\0" * 1000, rng.randbytes(1000), b"#EXTM3U\nhttp://127.0.0.1:9/a.ts\n", b"<svg/>", b"[" * 100_000]
    )


BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (_cut, _flip_bits, _overwrite, _remove, _insert, _replace_all)


def damage_bytes(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """(what was done, the damaged bytes)"""
    how = rng.choices(BYTES, (3, 5, 5, 2, 2, 1))[0]
    return how.__name__.strip("_"), how(rng, data)


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths of all values in a JSON value, itself included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in items for place in _places(part, (*path, key)))]


def damage_json(rng: random.Random, content: Any) -> tuple[str, str]:
    """(what was done, the text): a value is replaced, removed or repeated, or the text is damaged."""
    content, place = copy.deepcopy(content), rng.choice(_places(content))
    name = ".".join(map(str, place))
    if rng.random() < 0.25 or not place:
        what, data = damage_bytes(rng, json.dumps(content).encode())
        return f"text: {what}", data.decode("utf-8", "surrogateescape")
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    how = rng.choice(("replace", "replace", "replace", "remove", "repeat", "rename"))
    if how == "replace":
        parent[place[-1]] = rng.choice(ODD_VALUES)
    elif how == "remove":
        del parent[place[-1]]
    elif isinstance(parent, dict):
        parent[f"{place[-1]}{'' if how == 'repeat' else rng.choice(['s', ' ', '2'])}"] = parent.pop(place[-1])
    else:
        parent.append(parent[place[-1]])
    text = json.dumps(content)
    if how == "repeat" and isinstance(parent, dict):  # a key that is there twice
        text = text.replace(json.dumps(place[-1]) + ":", json.dumps(place[-1]) + ": null, " + json.dumps(place[-1]) + ":", 1)
    return f"{how} {name}", text


def damage_array(rng: random.Random, array: np.ndarray) -> tuple[str, np.ndarray]:
    """(what was done, the array): of another shape, type or with values that no network has."""
    how = rng.choice(("nan", "inf", "large", "transposed", "flat", "empty", "integers", "double", "scalar", "longer"))
    if array.dtype.kind != "f" and how in ("nan", "inf", "large"):
        how = "longer"
    if how in ("nan", "inf", "large"):
        result = array.copy()
        result.flat[rng.randrange(result.size)] = {"nan": np.nan, "inf": -np.inf, "large": 1e38}[how]
        return how, result
    changed = {
        "transposed": lambda: np.ascontiguousarray(array.T),
        "flat": array.ravel,
        "empty": lambda: np.atleast_1d(array)[:0],
        "integers": lambda: array.astype(np.int32),
        "double": lambda: array.astype(np.float64),
        "scalar": lambda: array.ravel()[:1].reshape(()),
        "longer": lambda: np.concatenate([np.atleast_1d(array)] * 2),
    }
    return how, changed[how]()
