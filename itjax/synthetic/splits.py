"""The splits of the drawn world, which share neither a person, nor a voice, nor a sentence."""

import hashlib
from typing import Literal, TypeAlias, get_args

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def split_of(name: str) -> Split:
    """The split of something that has a name, by its hash: eight of ten are for training, one each for the others."""
    part = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 10
    return SPLITS[max(0, part - 7)]
