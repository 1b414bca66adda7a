"""Separately trained networks and a new DiT in one checkpoint."""

from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from itjax.commands import assemble as command
from itjax.conditioning.prompt import load_tokenizer
from itjax.config import Networks, Preset, Umt5Sizes, VaeSizes, to_json
from itjax.configs import PRESETS
from itjax.errors import UserError
from itjax.parallel.sharding import make_mesh
from itjax.training import assembly
from itjax.training.assembly import TOKENIZER_FILE, assemble, lazy
from itjax.training.contrastive.tokenizer import tokenizer_of
from itjax.weights import store
from itjax.weights.sources import open_converted
from itjax.weights.specs import network_specs

SMALL = PRESETS["small"]
STAGES = replace(SMALL.networks, vae=VaeSizes(dim=8, num_res_blocks=1))  # of the networks that are given


def test_the_small_networks_are_small_and_fit_each_other():
    specs = network_specs(SMALL.networks)
    count = sum(leaf.size for spec in specs.values() for leaf in jax.tree.leaves(spec.abstract))
    assert 12e6 < count < 15e6
    assert assembly.with_sizes(SMALL, {}) == SMALL


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Folders as the trainers leave them: {network: folder}. The values tell the networks apart."""
    folder = tmp_path_factory.mktemp("stages")
    vae = VaeSizes(dim=8, num_res_blocks=1)
    specs = network_specs(STAGES)
    filled = lambda name, value, dtype: jax.tree.map(
        lambda leaf: lazy(np.full(leaf.shape, value, dtype)), specs[name].abstract
    )
    places = {"speech": "export/checkpoint", "vae": "result/weights", "encoders": "result/weights"}
    for name, place in places.items():
        (folder / name / place).parent.mkdir(parents=True)
    preset = to_json(Preset("speech-encoder", Networks(wav2vec2=SMALL.networks.wav2vec2), {}))
    store.save(folder / "speech" / places["speech"], {"wav2vec2": filled("wav2vec2", 1, ml_dtypes.bfloat16)}, preset)
    store.save(folder / "vae" / places["vae"], {"vae": filled("vae", 2, np.float32)}, {"vae": asdict(vae)})
    tokenizer_of(["a blue cat"]).save(str(folder / "tokenizer.json"))
    sizes = {"clip": asdict(SMALL.networks.clip), "umt5": asdict(SMALL.networks.umt5)}
    both = {name: filled(name, value, ml_dtypes.bfloat16) for name, value in (("clip", 3), ("umt5", 4))}
    store.save(folder / "encoders" / places["encoders"], both, sizes, {TOKENIZER_FILE: folder / "tokenizer.json"})
    return {"wav2vec2": folder / "speech", "vae": folder / "vae", "clip": folder / "encoders", "umt5": folder / "encoders"}


def zeros(networks, network, seed):
    """In place of Flax's initialisation, which takes seconds to compile."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), network_specs(networks)[network].abstract)


def test_stages_become_a_checkpoint_that_opens(stages, tmp_path, monkeypatch):
    monkeypatch.setattr(assembly, "initial", zeros)
    monkeypatch.setattr(command.configs, "named", lambda name: SMALL)
    flags = {
        "speech_encoder": stages["wav2vec2"],
        "vae": stages["vae"],
        "encoders": stages["clip"],
        "output": tmp_path / "all",
    }
    assert command.main([part for name, value in flags.items() for part in (f"--{name}", str(value))]) == 0
    weights = open_converted(tmp_path / "all", [])
    assert weights.preset.networks == STAGES
    mesh = make_mesh(1, 1, heads=4, devices=jax.devices()[:1])
    for network, value in (("wav2vec2", 1), ("vae", 2), ("clip", 3), ("umt5", 4), ("dit", 0)):
        leaf = jax.tree.leaves(weights.read(network, mesh, jnp.float32))[0]
        assert np.all(np.asarray(leaf) == value), network
    dtypes = {path.split("/")[0]: leaf.dtype.name for path, leaf in store.open_checkpoint(tmp_path / "all").tensors.items()}
    assert (dtypes["clip"], dtypes["vae"], dtypes["dit"]) == ("bfloat16", "float32", "float32")
    assert load_tokenizer(weights.tokenizer, 512).encode("a cat").tokens == ["▁a", "▁cat", "</s>"]


def test_initial_values_are_those_of_the_seed():
    sizes = Umt5Sizes(vocabulary=64, width=16, attention_width=16, mlp=16, layers=1, heads=2)
    networks = replace(SMALL.networks, umt5=sizes)
    make = lambda seed: flatten_dict(assembly.initial(networks, "umt5", seed), sep="/")
    first, other = make(0), make(1)
    assert first.keys() == flatten_dict(network_specs(networks)["umt5"].abstract, sep="/").keys()
    name = "token_embedding/embedding"
    assert not np.array_equal(first[name], other[name])


def test_sizes_that_do_not_fit_are_refused(stages, tmp_path):
    audio = replace(SMALL.networks.dit.audio, channels=128)
    other = replace(SMALL, networks=replace(SMALL.networks, dit=replace(SMALL.networks.dit, audio=audio)))
    with pytest.raises(
        UserError, match=r"export/checkpoint: wav2vec2.width is 192, but dit.audio.channels of preset small is 128"
    ):
        assemble(other, {"wav2vec2": stages["wav2vec2"]}, tmp_path / "none")
    with pytest.raises(UserError, match="no checkpoint of the network vae is in this folder"):
        assemble(SMALL, {"vae": stages["wav2vec2"]}, tmp_path / "none")
    unfit = {"vae": lazy(np.zeros(3, np.float32))}
    wrong = unflatten_dict({"vae/encoder/other": unfit["vae"]}, sep="/")
    store.save(tmp_path / "wrong", wrong, {"vae": asdict(STAGES.vae)})
    with pytest.raises(UserError, match="vae is not of the sizes it states"):
        assemble(replace(SMALL, networks=STAGES), {"vae": tmp_path / "wrong"}, tmp_path / "none")
    assert not (tmp_path / "none").exists()
