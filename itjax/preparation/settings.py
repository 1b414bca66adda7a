"""Settings of the preparation."""

from typing import NamedTuple

from jax.typing import DTypeLike

from itjax.preparation.clips import Limits
from itjax.records import Layout


class Settings(NamedTuple):
    """Settings of the preparation. `size`: one of the preset's tables of video sizes. `batch`: chunks per device at once."""

    layout: Layout
    size: str
    limits: Limits
    batch: int
    shard_bytes: int
    dtype: DTypeLike
