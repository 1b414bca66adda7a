"""Sources of weights for a run: our converted checkpoint or the official files, with the same interface."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from jax.typing import DTypeLike

from itjax.config import Preset
from itjax.errors import UserError
from itjax.parallel.sharding import network_shardings
from itjax.preset_json import preset_from_json
from itjax.weights import store
from itjax.weights.identity import identity_of
from itjax.weights.load import load, torch_view
from itjax.weights.lora import LoraFile, with_loras
from itjax.weights.official import check_all, tokenizer_folder
from itjax.weights.specs import NetworkSpec, network_specs
from itjax.weights.torch_files import TensorFiles


@runtime_checkable
class NetworkLoader(Protocol):
    """Loads one network in a dtype, each leaf directly onto its shards.

    If `only` is given, only the leaves whose path ("blocks/q/kernel") it accepts are read.
    """

    def __call__(self, network: str, mesh: Mesh, dtype: DTypeLike, only: Callable[[str], bool] | None = None) -> dict:
        """The parameters of "dit", "vae", "umt5", "clip" or "wav2vec2" as a nested dict."""


class Weights(NamedTuple):
    """An opened and checked set of weights.

    `identity` distinguishes sets of weights; `encoders` does so for all networks but the DiT, the only one changed by LoRA
    and training. `read` loads one network.
    """

    preset: Preset
    tokenizer: Path
    identity: str
    encoders: str
    read: NetworkLoader


def preset_of(directory: Path) -> Preset:
    """The preset with which a converted checkpoint was made.

    Raises:
        UserError: if `directory` is not a converted checkpoint, or is damaged.
    """
    try:
        return preset_from_json(store.read_metadata(directory))
    except ValueError as error:
        raise UserError(f"{directory / store.SIZES_FILE}: {error}. {store.RECOVERY_HINT.capitalize()}.") from error


def open_converted(directory: Path, loras: Sequence[LoraFile]) -> Weights:
    """Opens a checkpoint made by convert_weights.py. LoRA deltas are added while the DiT is read.

    Raises:
        UserError: if `directory` is not such a checkpoint or is damaged, or a LoRA does not match.
    """
    preset = preset_of(directory)
    specs = network_specs(preset.networks)
    files = store.open_checkpoint(directory)

    def read(network: str, mesh: Mesh, dtype: DTypeLike, only: Callable[[str], bool] | None = None) -> dict:
        wanted = _select(network_shardings(network, specs[network].abstract, mesh, dtype), only)
        return store.restore(directory, {network: wanted})[network]

    identity = identity_of(files, [])
    weights = Weights(preset, tokenizer_folder(store.companion_files(directory)), identity, identity, read)
    if not loras:
        return weights
    return replace_dit(weights, with_loras(torch_view(specs["dit"], files, "dit"), loras), identity_of(files, loras))


def replace_dit(weights: Weights, dit: TensorFiles, identity: str) -> Weights:
    """Replaces the DiT by tensors given by their torch names."""
    spec = network_specs(weights.preset.networks)["dit"]

    def read(network: str, mesh: Mesh, dtype: DTypeLike, only: Callable[[str], bool] | None = None) -> dict:
        if network != "dit":
            return weights.read(network, mesh, dtype, only)
        return load(spec, dit, _select(network_shardings(network, spec.abstract, mesh, dtype), only), network)

    return weights._replace(identity=identity, read=read)


def open_files(preset: Preset, opened: Mapping[str, TensorFiles], tokenizer: Path, loras: Sequence[LoraFile]) -> Weights:
    """The weights in official files that were opened by `open_official`, once they are checked to be of the preset's sizes.

    Raises:
        UserError: if something is missing or does not match; the message names it.
    """
    specs, files = network_specs(preset.networks), dict(opened)
    check_all(specs, files)
    if loras:
        files["dit"] = with_loras(files["dit"], loras)

    def read(network: str, mesh: Mesh, dtype: DTypeLike, only: Callable[[str], bool] | None = None) -> dict:
        spec: NetworkSpec = specs[network]
        return load(spec, files[network], _select(network_shardings(network, spec.abstract, mesh, dtype), only), network)

    all_tensors = TensorFiles({f"{n}/{name}": t for n, tensors in files.items() for name, t in tensors.tensors.items()})
    identity, encoders = identity_of(all_tensors, loras), identity_of(all_tensors, [])
    return Weights(preset, tokenizer, identity, encoders, read)


def _select(wanted: dict, only: Callable[[str], bool] | None) -> dict:
    if only is None:
        return wanted
    return unflatten_dict({path: x for path, x in flatten_dict(wanted, sep="/").items() if only(path)}, sep="/")


def free_device_memory(parameters: dict) -> None:
    """Frees the device memory of a network immediately."""
    for array in jax.tree.leaves(parameters):
        array.delete()
