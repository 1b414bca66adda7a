"""Puts separately trained networks and a new DiT together into one checkpoint, as convert_weights.py writes it.

What is not given has initial values, so that every step after it can be tried before the training.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from itjax.config import Networks, Preset, to_json
from itjax.errors import UserError, first_ten
from itjax.models.clip import Clip
from itjax.models.umt5 import Umt5
from itjax.models.wav2vec2 import Wav2Vec2
from itjax.preset_json import preset_from_json
from itjax.progress import SILENT, Progress
from itjax.training import dit_start
from itjax.training.contrastive.tokenizer import drawn_tokenizer
from itjax.training.stored import checkpoint_in, sizes_in
from itjax.training.vae.start import initial_parameters
from itjax.weights import store
from itjax.weights.lazy import LazyTensor
from itjax.weights.official import TOKENIZER
from itjax.weights.specs import network_specs

TOKENIZER_FILE = f"{TOKENIZER}/tokenizer.json"


def assemble(
    preset: Preset, given: Mapping[str, Path], output: Path, seed: int = 0, progress: Progress = SILENT
) -> Preset:  # fmt: skip
    """Writes the checkpoint `output` of all networks; returns its preset: `preset` with the sizes of the given networks.

    Args:
        preset: Sizes of the DiT, and of the networks that are not given.
        given: {network: folder of a run, a result or a checkpoint with this network}.
        output: Folder to create.
        seed: Random seed of the initial values.
        progress: Is told where each network is from.

    Raises:
        UserError: If a folder does not have its network, sizes do not fit each other, or `output` exists.
        OutputError: If the disk is full.
    """
    folders = {network: checkpoint_in(folder, network) for network, folder in given.items()}
    preset = with_sizes(preset, folders)
    specs = network_specs(preset.networks)
    trees = {network: _stored(folder, network, specs[network].abstract) for network, folder in folders.items()}
    for network in specs.keys() - folders.keys():  # last, as it takes longer than to find that something does not fit
        made = flatten_dict(initial(preset.networks, network, seed), sep="/")
        trees[network] = {path: lazy(leaf) for path, leaf in made.items()}
    for network in specs:
        count = sum(int(np.prod(leaf.shape)) for leaf in trees[network].values())
        progress.notice(f"{network}: {count:,} parameters, {folders.get(network, 'initial values')}")
    arrays = {f"{network}/{path}": leaf for network, tree in trees.items() for path, leaf in tree.items()}
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer = _tokenizer(folders, Path(temporary))
        store.save(output, unflatten_dict(arrays, sep="/"), to_json(preset), {TOKENIZER_FILE: tokenizer})
    return preset


def with_sizes(preset: Preset, folders: Mapping[str, Path]) -> Preset:
    """The preset with the sizes of the networks in these checkpoints.

    Raises:
        UserError: If they do not fit each other.
    """
    content = json.loads(json.dumps(to_json(preset)))
    content["networks"] |= {network: sizes_in(folder)[network] for network, folder in folders.items()}
    try:
        found = preset_from_json(content)
    except ValueError as error:
        raise UserError(f"preset {preset.name} with {_listed(folders)}: {error}") from error
    sizes = found.networks
    for network, key, have, of, wanted in (
        ("wav2vec2", "layers", sizes.wav2vec2.layers, "dit.audio.layers", sizes.dit.audio.layers),
        ("wav2vec2", "width", sizes.wav2vec2.width, "dit.audio.channels", sizes.dit.audio.channels),
        ("vae", "z_dim", sizes.vae.z_dim, "dit.out_dim", sizes.dit.out_dim),
        ("umt5", "width", sizes.umt5.width, "dit.text_dim", sizes.dit.text_dim),
        ("clip", "width", sizes.clip.width, "dit.clip_dim", sizes.dit.clip_dim),
    ):
        if have != wanted:
            raise UserError(
                f"{folders.get(network, f'preset {preset.name}')}: {network}.{key} is {have}, but {of} of preset "
                f"{preset.name} is {wanted}; train the network with this size, or give a --preset that has it"
            )
    return found


def _listed(folders: Mapping[str, Path]) -> str:
    return ", ".join(str(folder) for folder in folders.values()) or "its own sizes"


def _stored(checkpoint: Path, network: str, abstract: dict) -> dict[str, LazyTensor]:
    """{path: tensor} of a network in a checkpoint, in the dtypes it has."""
    files = store.open_checkpoint(checkpoint).tensors
    found = {path.split("/", 1)[1]: leaf for path, leaf in files.items() if path.split("/")[0] == network}
    wanted = {path: tuple(leaf.shape) for path, leaf in flatten_dict(abstract, sep="/").items()}
    different = sorted(
        path for path in found.keys() | wanted.keys() if path not in found or found[path].shape != wanted.get(path)
    )
    if different:
        raise UserError(f"{checkpoint}: {network} is not of the sizes it states: {first_ten(different)}")
    return found


def initial(networks: Networks, network: str, seed: int) -> dict:
    """Initial parameters of one network, float32."""
    if network == "vae":
        return initial_parameters(networks.vae, seed)
    side, sound = networks.clip.image, networks.wav2vec2.receptive_field
    ids = jnp.zeros((1, 4), jnp.int32)
    makers: dict[str, Callable[[Array], dict]] = {
        "dit": partial(dit_start.initial_parameters, networks.dit),
        "umt5": lambda key: Umt5(networks.umt5).init(key, ids, ids)["params"],
        "clip": lambda key: Clip(networks.clip).init(key, jnp.zeros((1, side, side, 3)))["params"],
        "wav2vec2": lambda key: Wav2Vec2(networks.wav2vec2).init(key, jnp.zeros((1, sound)), num_frames=1)["params"],
    }
    return jax.jit(makers[network])(jax.random.key(seed))


def lazy(array: Array | np.ndarray) -> LazyTensor:
    """An array as a tensor that is about to be written."""
    values = np.asarray(array)
    return LazyTensor(values.shape, values.dtype, values.__getitem__)


def _tokenizer(folders: Mapping[str, Path], temporary: Path) -> Path:
    """The file of the text encoder's tokenizer: of its checkpoint, or that of the drawn world."""
    if "umt5" in folders:
        file = store.companion_files(folders["umt5"]) / TOKENIZER_FILE
        if not file.is_file():
            raise UserError(f"{folders['umt5']}: its tokenizer is missing ({file}); train the text encoder again")
        return file
    drawn_tokenizer().save(str(temporary / "tokenizer.json"))
    return temporary / "tokenizer.json"
