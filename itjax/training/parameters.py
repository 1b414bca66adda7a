"""Which parameters of the DiT train and which are frozen, how they begin, and how both become one network again."""

from fnmatch import fnmatch
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from jax.typing import DTypeLike

from itjax.config import DiTSizes
from itjax.errors import UserError
from itjax.models.dit import abstract_parameters, init
from itjax.parallel.sharding import with_shardings
from itjax.training.config import Trained
from itjax.weights.sources import Weights

AUDIO = ("audio_adapter", "blocks/audio_q", "blocks/audio_kv", "blocks/audio_o", "blocks/norm_x")
LORA = ("lora_down", "lora_up")


def flat(tree: dict) -> dict[str, Any]:
    """Leaves (arrays, or their shapes) by path, "blocks/q/kernel"."""
    return flatten_dict(tree, sep="/")


def nested(leaves: dict) -> dict:
    """The way back from `flat`."""
    return unflatten_dict(leaves, sep="/")


def is_audio(path: str) -> bool:
    """Whether the parameter at `path` is of the audio parts: adapter, audio attention and its norm."""
    return path.startswith(AUDIO)


def abstract(sizes: DiTSizes, trained: Trained) -> tuple[dict, dict]:
    """Shapes of what trains and of what is frozen, float32, nested.

    Raises:
        UserError: where LoRA's names match nothing, or its rank is larger than a layer.
    """
    leaves = flat(abstract_parameters(sizes))
    if trained.parts == "lora":
        return nested(_lora_shapes(leaves, trained)), nested(leaves)
    trains = {path: leaf for path, leaf in leaves.items() if trained.parts == "full" or is_audio(path)}
    return nested(trains), nested({path: leaf for path, leaf in leaves.items() if path not in trains})


def _lora_shapes(leaves: dict, trained: Trained) -> dict:
    linear = {
        path.split("/")[1]: leaf.shape
        for path, leaf in leaves.items()
        if path.startswith("blocks/") and path.endswith("kernel")
    }
    unmatched = [p for p in trained.lora_layers if not any(fnmatch(name, p) for name in linear)]
    if unmatched:
        raise UserError(f"trained.lora-layers {', '.join(unmatched)}: the blocks have {', '.join(sorted(linear))}")
    shapes = {}
    for name, (layers, inputs, outputs) in linear.items():
        if any(fnmatch(name, pattern) for pattern in trained.lora_layers):
            rank = trained.lora_rank
            if rank > min(inputs, outputs):
                raise UserError(
                    f"trained.lora-rank {rank}: blocks/{name} is {inputs} to {outputs}, at most {min(inputs, outputs)}"
                )
            shapes[f"blocks/{name}/lora_down"] = jax.ShapeDtypeStruct((layers, inputs, rank), jnp.float32)
            shapes[f"blocks/{name}/lora_up"] = jax.ShapeDtypeStruct((layers, rank, outputs), jnp.float32)
    return shapes


def merged(frozen: dict, trainable: dict) -> dict:
    """The network's parameters: trained leaves beside frozen ones."""
    return nested(flat(frozen) | flat(trainable))


def for_compute(trainable: dict, dtype: DTypeLike) -> dict:
    """The masters as products take them: the blocks' matrices in `dtype`, so that a mesh gathers them in it."""
    narrow = lambda path: path.startswith("blocks/") and path.endswith(("kernel", *LORA))
    return nested({path: leaf.astype(dtype) if narrow(path) else leaf for path, leaf in flat(trainable).items()})


def read_frozen(weights: Weights, sizes: DiTSizes, trained: Trained, mesh: Mesh, dtype: DTypeLike) -> dict:
    """What is frozen, in `dtype`, each leaf straight onto its shards. What trains is not read."""
    frozen = flat(abstract(sizes, trained)[1])
    return weights.read("dit", mesh, dtype, frozen.__contains__) if frozen else {}


def read_trainable(weights: Weights, sizes: DiTSizes, trained: Trained, mesh: Mesh, seed: int) -> dict:
    """What trains, as float32 masters on their shards: from the checkpoint, or anew where that has none."""
    trains = flat(abstract(sizes, trained)[0])
    anew = {path for path in trains if path.endswith(LORA) or (trained.new_audio and is_audio(path))}
    old = trains.keys() - anew
    leaves = flat(weights.read("dit", mesh, jnp.float32, old.__contains__)) if old else {}
    begun = flat(begin(sizes, trained, mesh, seed)) if anew else {}
    return nested({path: begun[path] if path in anew else leaves[path] for path in trains})


def begin(sizes: DiTSizes, trained: Trained, mesh: Mesh, seed: int) -> dict:
    """What does not come from a checkpoint, each leaf born on its shards.

    LoRA's random `down` and zero `up` (arXiv 2106.09685, section 4.1), and audio parts whose output begins at zero.
    """
    trains = flat(abstract(sizes, trained)[0])

    def make(key: jax.Array) -> dict:
        made = {}
        if trained.new_audio:
            made = {path: leaf for path, leaf in flat(init(sizes, key)).items() if is_audio(path)}
            made["blocks/audio_o/kernel"] = jnp.zeros_like(made["blocks/audio_o/kernel"])
        for number, (path, leaf) in enumerate(trains.items()):
            if path.endswith("lora_down"):
                normal = jax.random.normal(jax.random.fold_in(key, number), leaf.shape)
                made[path] = normal / leaf.shape[1] ** 0.5
            elif path.endswith("lora_up"):
                made[path] = jnp.zeros(leaf.shape)
        return nested(made)

    key = jax.random.key(seed)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, with_shardings(jax.eval_shape(make, key), mesh))
    return jax.jit(make, out_shardings=shardings)(key)
