"""The five networks of a checkpoint: their tables, their shapes, and the tensors of their files that they do not use."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, cached_property
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from itjax.config import Networks
from itjax.models import dit, vae
from itjax.models.clip import Clip
from itjax.models.umt5 import Umt5
from itjax.models.wav2vec2 import Wav2Vec2
from itjax.weights.mapping import Table
from itjax.weights.tables import clip as clip_table
from itjax.weights.tables import dit as dit_table
from itjax.weights.tables import umt5 as umt5_table
from itjax.weights.tables import vae as vae_table
from itjax.weights.tables import wav2vec2 as wav2vec2_table


@dataclass(frozen=True)
class NetworkSpec:
    """One network: `trace` returns its parameter shapes; `unused` are patterns of torch names it does not use."""

    table: Table
    trace: Callable[[], dict]
    unused: tuple[str, ...] = ()

    @cached_property
    def abstract(self) -> dict:
        """Shapes of the parameters. The result is cached: do not modify it."""
        return self.trace()

    def is_unused(self, name: str) -> bool:
        """Whether the network does not use the torch tensor `name`."""
        return any(fnmatchcase(name, pattern) for pattern in self.unused)


@cache  # tracing takes a second or two: do it once per process, and only for networks whose shapes are needed
def network_specs(networks: Networks) -> dict[str, NetworkSpec]:
    """The specs of "dit", "vae", "umt5", "clip" and "wav2vec2", by name. Allocates nothing."""
    side, sound = networks.clip.image, networks.wav2vec2.receptive_field
    picture, samples = np.zeros((1, side, side, 3), np.float32), np.zeros((1, sound), np.float32)
    return {
        "dit": NetworkSpec(dit_table.TABLE, lambda: dit.abstract_parameters(networks.dit)),
        "vae": NetworkSpec(vae_table.table(networks.vae), lambda: vae.abstract_parameters(networks.vae)),
        "umt5": NetworkSpec(umt5_table.TABLE, lambda: _abstract(Umt5(networks.umt5), *[np.zeros((1, 4), np.int32)] * 2)),
        "clip": NetworkSpec(
            clip_table.TABLE, lambda: _abstract(Clip(networks.clip), picture), clip_table.unused(networks.clip.layers)
        ),
        "wav2vec2": NetworkSpec(
            wav2vec2_table.TABLE,
            lambda: _abstract(Wav2Vec2(networks.wav2vec2), samples, num_frames=1),
            wav2vec2_table.UNUSED,
        ),
    }


def _abstract(network: nn.Module, *inputs: Any, **static: Any) -> dict:
    return jax.eval_shape(lambda *arrays: network.init(jax.random.key(0), *arrays, **static), *inputs)["params"]
