"""Splits the DiT's parameters into trained and frozen ones, initialises them, and merges both into one network."""

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
from itjax.parallel.sharding import STACKED, with_shardings
from itjax.training.config import TrainedParameters
from itjax.weights.sources import Weights

AUDIO = ("audio_adapter", "blocks/audio_q", "blocks/audio_kv", "blocks/audio_o", "blocks/norm_x")
LORA = ("lora_down", "lora_up")


def flat(tree: dict) -> dict[str, Any]:
    """The leaves of a tree by path, e.g. "blocks/q/kernel"."""
    return flatten_dict(tree, sep="/")


def nested(leaves: dict) -> dict:
    """The inverse of `flat`."""
    return unflatten_dict(leaves, sep="/")


def is_audio(path: str) -> bool:
    """Whether the parameter at `path` belongs to the audio parts: adapter, audio attention and its norm."""
    return path.startswith(AUDIO)


def is_layer_matrix(path: str) -> bool:
    """Whether the parameter at `path` ("blocks/q/kernel") is a matrix of every layer, stacked: [layers, inputs, outputs]."""
    return path.startswith(f"{STACKED}/") and path.endswith("kernel")


def abstract(sizes: DiTSizes, trained: TrainedParameters) -> tuple[dict, dict]:
    """Shapes of the trained and of the frozen parameters, float32, nested.

    Raises:
        UserError: If a LoRA pattern matches no layer, or the rank exceeds a layer's size.
    """
    leaves = flat(abstract_parameters(sizes))
    if trained.parts == "lora":
        return nested(_lora_shapes(leaves, trained)), nested(leaves)
    trainable = {path: leaf for path, leaf in leaves.items() if trained.parts == "full" or is_audio(path)}
    return nested(trainable), nested({path: leaf for path, leaf in leaves.items() if path not in trainable})


def _lora_shapes(leaves: dict, trained: TrainedParameters) -> dict:
    linear = {path.split("/")[1]: leaf.shape for path, leaf in leaves.items() if is_layer_matrix(path)}
    unmatched = [p for p in trained.lora_layers if not any(fnmatch(name, p) for name in linear)]
    if unmatched:
        raise UserError(f"trained.lora-layers {', '.join(unmatched)}: the blocks have {', '.join(sorted(linear))}")
    shapes = {}
    for name, (layers, inputs, outputs) in linear.items():
        if any(fnmatch(name, pattern) for pattern in trained.lora_layers):
            rank = trained.lora_rank
            if rank > min(inputs, outputs):
                raise UserError(
                    f"trained.lora-rank {rank}: blocks/{name} is {inputs}x{outputs}: at most {min(inputs, outputs)}"
                )
            shapes[f"blocks/{name}/lora_down"] = jax.ShapeDtypeStruct((layers, inputs, rank), jnp.float32)
            shapes[f"blocks/{name}/lora_up"] = jax.ShapeDtypeStruct((layers, rank, outputs), jnp.float32)
    return shapes


def merge(frozen: dict, trainable: dict) -> dict:
    """The network's parameters: frozen and trained leaves in one tree."""
    return nested(flat(frozen) | flat(trainable))


def cast_for_compute(trainable: dict, dtype: DTypeLike) -> dict:
    """Casts the blocks' float32 master matrices to `dtype`, so that they are also gathered across devices in it."""
    cast = lambda path: is_layer_matrix(path) or path.endswith(LORA)
    return nested({path: leaf.astype(dtype) if cast(path) else leaf for path, leaf in flat(trainable).items()})


def read_frozen(weights: Weights, sizes: DiTSizes, trained: TrainedParameters, mesh: Mesh, dtype: DTypeLike) -> dict:
    """Reads the frozen parameters in `dtype`, each leaf directly onto its shards. Trained parameters are not read."""
    frozen = flat(abstract(sizes, trained)[1])
    return weights.read("dit", mesh, dtype, frozen.__contains__) if frozen else {}


def read_trainable(weights: Weights, sizes: DiTSizes, trained: TrainedParameters, mesh: Mesh, seed: int) -> dict:
    """The trained parameters as sharded float32 masters: from the checkpoint, or newly initialised if not in it."""
    trainable = flat(abstract(sizes, trained)[0])
    new_paths = {path for path in trainable if path.endswith(LORA) or (trained.new_audio and is_audio(path))}
    stored_paths = trainable.keys() - new_paths
    stored = flat(weights.read("dit", mesh, jnp.float32, stored_paths.__contains__)) if stored_paths else {}
    new = flat(initialise(sizes, trained, mesh, seed)) if new_paths else {}
    return nested({path: new[path] if path in new_paths else stored[path] for path in trainable})


def initialise(sizes: DiTSizes, trained: TrainedParameters, mesh: Mesh, seed: int) -> dict:
    """Initialises the parameters that do not come from a checkpoint, each leaf directly on its shards.

    LoRA has random `down` and zero `up` matrices (arXiv 2106.09685, section 4.1); new audio parts have a zero output.
    """
    trainable = flat(abstract(sizes, trained)[0])

    def make(key: jax.Array) -> dict:
        new = {}
        if trained.new_audio:
            new = {path: leaf for path, leaf in flat(init(sizes, key)).items() if is_audio(path)}
            new["blocks/audio_o/kernel"] = jnp.zeros_like(new["blocks/audio_o/kernel"])
        for number, (path, leaf) in enumerate(trainable.items()):
            if path.endswith("lora_down"):
                normal = jax.random.normal(jax.random.fold_in(key, number), leaf.shape)
                new[path] = normal / leaf.shape[1] ** 0.5
            elif path.endswith("lora_up"):
                new[path] = jnp.zeros(leaf.shape)
        return nested(new)

    key = jax.random.key(seed)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, with_shardings(jax.eval_shape(make, key), mesh))
    return jax.jit(make, out_shardings=shardings)(key)
