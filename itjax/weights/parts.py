"""The five networks of a checkpoint: each one's table, shapes, and the tensors of its file that it does not use."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

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


class Part(NamedTuple):
    """One network: `abstract` has the shapes of its parameters; `unused` are patterns of torch names kept as they are."""

    table: Table
    abstract: dict
    unused: tuple[str, ...] = ()

    def is_unused(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.unused)


def parts(networks: Networks) -> dict[str, Part]:
    """By name: "dit", "vae", "umt5", "clip", "wav2vec2". Nothing is allocated."""
    side, sound = networks.clip.image, networks.wav2vec2.reach
    clip_shapes = _abstract(Clip(networks.clip), ((1, side, side, 3), jnp.float32))
    umt5_shapes = _abstract(Umt5(networks.umt5), ((1, 4), jnp.int32), ((1, 4), jnp.int32))
    wav2vec2 = Wav2Vec2(networks.wav2vec2)
    wav2vec2_shapes = _abstract(lambda samples: wav2vec2.init(jax.random.key(0), samples, 1), ((1, sound), jnp.float32))
    return {
        "dit": Part(dit_table.TABLE, dit.abstract_parameters(networks.dit)),
        "vae": Part(vae_table.table(networks.vae), vae.abstract_parameters(networks.vae)),
        "umt5": Part(umt5_table.TABLE, umt5_shapes),
        "clip": Part(clip_table.TABLE, clip_shapes, clip_table.unused(networks.clip.layers)),
        "wav2vec2": Part(wav2vec2_table.TABLE, wav2vec2_shapes, wav2vec2_table.UNUSED),
    }


def _abstract(network: nn.Module | Callable[..., Any], *inputs: tuple[tuple[int, ...], Any]) -> dict:
    init = network.init if isinstance(network, nn.Module) else None
    call = network if init is None else lambda *args: init(jax.random.key(0), *args)
    return jax.eval_shape(call, *(jax.ShapeDtypeStruct(*spec) for spec in inputs))["params"]
