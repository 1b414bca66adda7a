"""Where the weights of a run come from: our converted checkpoint, or the official files. Both give the same things."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from jax.typing import DTypeLike

from itjax.config import Preset, preset_from_json
from itjax.errors import UserError
from itjax.parallel.sharding import with_shardings
from itjax.weights import store
from itjax.weights.load import load, torch_view
from itjax.weights.lora import with_loras
from itjax.weights.official import check_all, open_official, tokenizer_folder
from itjax.weights.specs import NetworkSpec, network_specs
from itjax.weights.torch_files import TensorFiles


@runtime_checkable
class Read(Protocol):
    """Loads one network in a dtype, each leaf straight onto its shards.

    Of its leaves those alone whose path ("blocks/q/kernel") `only` chooses, where it is given. The others are not read.
    """

    def __call__(self, network: str, mesh: Mesh, dtype: DTypeLike, only: Callable[[str], bool] | None = None) -> dict:
        """The parameters, nested, of "dit", "vae", "umt5", "clip" or "wav2vec2"."""


class Weights(NamedTuple):
    """An opened and checked set of weights.

    `identity` tells one set from another, `encoders` likewise but for the DiT, which LoRA and training change alone; `read`
    loads one network.
    """

    preset: Preset
    tokenizer: Path
    identity: str
    encoders: str
    read: Read


def preset_of(directory: Path) -> Preset:
    """The sizes that a converted checkpoint was made with.

    Raises:
        UserError: where `directory` is no checkpoint of ours, or is damaged.
    """
    try:
        return preset_from_json(store.read_metadata(directory))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{directory}: its sizes are not those of a checkpoint of ours ({error!r})") from error


def open_converted(directory: Path, loras: list[tuple[Path, float]]) -> Weights:
    """A checkpoint made by convert_weights.py. LoRA deltas are added as the DiT is read.

    Raises:
        UserError: where `directory` is no such checkpoint or is damaged, or a LoRA does not fit.
    """
    preset = preset_of(directory)
    specs = network_specs(preset.networks)
    files = store.open_checkpoint(directory)

    def read(network: str, mesh: Mesh, dtype: DTypeLike, only: Callable[[str], bool] | None = None) -> dict:
        wanted = _chosen(with_shardings(specs[network].abstract, mesh, dtype), only)
        return store.restore(directory, {network: wanted})[network]

    identity = identity_of(files, [])
    weights = Weights(preset, tokenizer_folder(store.companion_files(directory)), identity, identity, read)
    if not loras:
        return weights
    return with_dit(weights, with_loras(torch_view(specs["dit"], files, "dit"), loras), identity_of(files, loras))


def with_dit(weights: Weights, dit: TensorFiles, identity: str) -> Weights:
    """The same weights but for the DiT, whose tensors are given by their torch names."""
    spec = network_specs(weights.preset.networks)["dit"]

    def read(network: str, mesh: Mesh, dtype: DTypeLike, only: Callable[[str], bool] | None = None) -> dict:
        if network != "dit":
            return weights.read(network, mesh, dtype, only)
        return load(spec, dit, _chosen(with_shardings(spec.abstract, mesh, dtype), only), network)

    return weights._replace(identity=identity, read=read)


def open_files(
    preset: Preset, ckpt_dir: Path, wav2vec_dir: Path, infinitetalk: Path | None, dit_path: Path | None,
    loras: list[tuple[Path, float]],
) -> Weights:  # fmt: skip
    """The official files, all checked to be there, whole, and of the preset's sizes.

    Raises:
        UserError: that names what is missing or does not fit.
    """
    specs = network_specs(preset.networks)
    files = open_official(ckpt_dir, wav2vec_dir, infinitetalk, dit_path)
    check_all(specs, files)
    if loras:
        files["dit"] = with_loras(files["dit"], loras)

    def read(network: str, mesh: Mesh, dtype: DTypeLike, only: Callable[[str], bool] | None = None) -> dict:
        spec: NetworkSpec = specs[network]
        return load(spec, files[network], _chosen(with_shardings(spec.abstract, mesh, dtype), only), network)

    all_tensors = TensorFiles({f"{n}/{name}": t for n, tensors in files.items() for name, t in tensors.tensors.items()})
    identity, encoders = identity_of(all_tensors, loras), identity_of(all_tensors, [])
    return Weights(preset, tokenizer_folder(ckpt_dir), identity, encoders, read)


def _chosen(wanted: dict, only: Callable[[str], bool] | None) -> dict:
    if only is None:
        return wanted
    return unflatten_dict({path: x for path, x in flatten_dict(wanted, sep="/").items() if only(path)}, sep="/")


def identity_of(files: TensorFiles, loras: list[tuple[Path, float]]) -> str:
    """Names, sizes and times of the files: enough to notice that a resumed run would go on with other weights."""
    paths = sorted({stored.file for stored in files.tensors.values()} | {path for path, _ in loras})
    about = lambda path: f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}"
    return ",".join([*map(about, paths), *(str(scale) for _, scale in loras)])


def free(parameters: dict) -> None:
    """Gives a network's device memory back at once."""
    for array in jax.tree.leaves(parameters):
        array.delete()
