"""What a run trained: as weights, as official files, and in the video that infer.py makes of either."""

import json
import os
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_dataset
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file

from itjax.commands import convert as convert_weights
from itjax.commands import infer, pack
from itjax.config import to_json
from itjax.configs.tiny import PRESET
from itjax.configs.training import TINY
from itjax.errors import UserError
from itjax.models.apply import apply
from itjax.models.dit import DiT
from itjax.parallel.sharding import make_mesh
from itjax.training import parameters, result, run_folder, state
from itjax.training.checkpoints import RunCheckpoints, folder_of
from itjax.training.config import Checkpoints, TrainedParameters
from itjax.training.parameters import flat
from itjax.weights import store as stored
from itjax.weights.lora import LoraFile
from itjax.weights.official import INFINITETALK, WAN, open_official, tokenizer_folder
from itjax.weights.sources import open_files

SIZES = tiny_dataset.PRESET.networks.dit
PARTS = ("audio", "lora", "full")


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(1, 1, heads=SIZES.num_heads, devices=jax.devices()[:1])


def moved(tree, seed):
    """Values that training could have come to: each a little off."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.02 * rng.standard_normal(x.shape, np.float32), tree)


class Run(NamedTuple):
    """A run's folder, its last weights, and their average."""

    folder: Path
    last: dict
    average: dict | None


def settings_of(folder, parts, *, checkpoint, ema=0.9, keep=1, elsewhere=""):
    """The settings of a run that `save_run` saves."""
    trained, optimizer = TrainedParameters(parts, lora_rank=4), replace(TINY.optimizer, ema=ema)
    kept = replace(TINY.checkpoints, keep=keep, folder=str(elsewhere))
    return replace(TINY, trained=trained, optimizer=optimizer, checkpoints=kept, run=str(folder), checkpoint=str(checkpoint))


def save_run(folder, begun_from, parts, mesh, *, checkpoint, ema=0.9, steps=(7,), elsewhere="") -> Run:
    """A run as training leaves it, saved at `steps` with other weights each time."""
    asked = settings_of(folder, parts, checkpoint=checkpoint, ema=ema, keep=len(steps), elsewhere=elsewhere)
    begun = parameters.read_trainable(begun_from, SIZES, asked.trained, mesh, seed=0)
    now = state.sharded_initial_state(begun, asked.optimizer, mesh)
    folder.mkdir()
    run_folder.create_or_check(asked, begun_from)
    keeper = RunCheckpoints(asked)
    for step in steps:
        average = None if now.ema is None else moved(now.ema, step)
        now = now._replace(step=jnp.asarray(step, jnp.int32), trainable=moved(now.trainable, step + 1), ema=average)
        keeper.save(step, now, {})
    keeper.wait()
    keeper.close()
    return Run(folder, flat(now.trainable), None if now.ema is None else flat(now.ema))


@pytest.fixture(scope="module")
def trained(weights, checkpoint, mesh, tmp_path_factory):
    """trained(parts) -> a run from the tiny checkpoint; nothing in its folder may be changed."""

    @cache
    def make(parts) -> Run:
        return save_run(tmp_path_factory.mktemp(parts) / "run", weights, parts, mesh, checkpoint=checkpoint)

    return make


def read(opened, mesh, dtype=jnp.float32):
    return {path: np.asarray(leaf) for path, leaf in flat(opened.read("dit", mesh, dtype)).items()}


def with_updates(before, updates):
    """Kernels with their low-rank updates added, layer by layer."""
    after = dict(before)
    for path, down in updates.items():
        if path.endswith("lora_down"):
            up = np.asarray(updates[path.replace("down", "up")])
            kernel = path.replace("lora_down", "kernel")
            after[kernel] = before[kernel] + np.einsum("nir,nro->nio", np.asarray(down), up)
    return after


@pytest.mark.parametrize("parts", PARTS)
def test_a_run_is_opened_as_weights(parts, trained, weights, mesh):
    """With the average of what it trained, and all else as it was."""
    run, _, average = trained(parts)
    before, found = read(weights, mesh), read(result.open_weights(run, []), mesh)
    expected = with_updates(before, average) if parts == "lora" else before | average
    assert found.keys() == expected.keys() == before.keys()
    changed = {path for path in found if not np.array_equal(found[path], before[path])}
    assert changed == (
        {p.replace("lora_down", "kernel") for p in average if "down" in p} if parts == "lora" else set(average)
    )
    for path, value in found.items():
        # the sums of four products are in another order; all else is copied
        np.testing.assert_allclose(value, expected[path], atol=1e-6 if parts == "lora" else 0, err_msg=path)


@pytest.mark.parametrize("parts", ["lora", "full"])
def test_a_run_from_float8_is_not_rounded_to_it(parts, checkpoint, mesh, tmp_path):
    arrays = stored.open_checkpoint(checkpoint).tensors
    eight = {p: x.astype(np.dtype(jnp.float8_e4m3fn)) if p.startswith("dit/") else x for p, x in arrays.items()}
    stored.save(tmp_path / "eight", unflatten_dict(eight, sep="/"), to_json(PRESET))
    begun_from = result.open_weights(tmp_path / "eight")
    run, _, average = save_run(tmp_path / "run", begun_from, parts, mesh, checkpoint=tmp_path / "eight")
    average = {path: np.asarray(value).astype(jnp.bfloat16).astype(np.float32) for path, value in average.items()}
    expected = with_updates(read(begun_from, mesh), average) if parts == "lora" else average
    for path, value in read(result.open_weights(run), mesh).items():
        # sums with a LoRA are rounded to bfloat16, which has 8 bits; a rounding to float8, of 4 bits, would be seen
        np.testing.assert_allclose(value, expected[path], rtol=2**-8 if parts == "lora" else 0, err_msg=path)


def test_a_run_is_packed_with_its_average(trained, mesh, tmp_path):
    run, _, average = trained("full")
    assert pack.main([str(run), "--output", str(tmp_path / "packed")]) == 0
    before, packed = result.open_weights(run, []), result.open_weights(tmp_path / "packed", [])
    found = read(packed, mesh, jnp.bfloat16)
    assert average.keys() == found.keys()
    for path, value in average.items():
        np.testing.assert_array_equal(found[path], np.asarray(value.astype(jnp.bfloat16)), err_msg=path)
    for network in ("vae", "umt5", "clip", "wav2vec2"):
        jax.tree.map(
            np.testing.assert_array_equal, *(opened.read(network, mesh, jnp.bfloat16) for opened in (before, packed))
        )


@pytest.mark.parametrize("parts", PARTS)
def test_a_run_goes_out_as_official_files(parts, trained, mesh, tmp_path, recordings, capsys):
    """Official files with those that were written in their place are the run's weights, bit for bit."""
    run, *_ = trained(parts)
    output, official = tmp_path / "official", recordings / "checkpoint"
    assert convert_weights.main(["--to-torch", "--checkpoint", str(run), "--output", str(output)]) == 0
    files = {file.relative_to(output).as_posix() for file in output.rglob("*") if file.is_file()}
    wan = {f"{WAN}/diffusion_pytorch_model{end}" for end in ("-00001-of-00001.safetensors", ".safetensors.index.json")}
    assert files == {"audio": {INFINITETALK}, "lora": {"lora.safetensors"}, "full": {INFINITETALK, *wan}}[parts]
    said = capsys.readouterr().out
    assert all(str(output / name) in said for name in files)
    audio = official / INFINITETALK if parts == "lora" else output / INFINITETALK
    assert load_file(audio).keys() == load_file(official / INFINITETALK).keys()
    base = official / WAN
    if parts == "full":
        base = tmp_path / WAN
        shutil.copytree(official / WAN, base, ignore=shutil.ignore_patterns("diffusion_pytorch_model*"))
        for name in wan:
            shutil.copyfile(output / name, tmp_path / name)
    loras = [LoraFile(output / "lora.safetensors")] if parts == "lora" else []
    opened = open_official(base, official / "chinese-wav2vec2-base", audio)
    published = open_files(PRESET, opened, tokenizer_folder(base), loras)
    ours, theirs = read(result.open_weights(run, []), mesh), read(published, mesh)
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        np.testing.assert_array_equal(value, theirs[path], err_msg=path)


def test_names_of_a_lora_file_are_those_that_others_read(trained, tmp_path):
    run, *_ = trained("lora")
    assert result.export(run, tmp_path / "out") == [tmp_path / "out/lora.safetensors"]
    tensors = load_file(tmp_path / "out/lora.safetensors")
    assert len(tensors) == 2 * 10 * SIZES.num_layers
    down, up = (tensors[f"diffusion_model.blocks.1.ffn.0.lora_{end}.weight"] for end in ("down", "up"))
    assert down.shape == (4, SIZES.dim) and up.shape == (SIZES.ffn_dim, 4)


def test_low_rank_updates_act_as_they_do_when_merged(trained, weights, mesh):
    """The network as it trains, with its updates beside the kernels, and as it is then used."""
    run, _, average = trained("lora")
    beside = parameters.merge(weights.read("dit", mesh, jnp.float32), parameters.nested(average))
    merged = result.open_weights(run, []).read("dit", mesh, jnp.float32)
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))
    dit, audio = SIZES, SIZES.audio
    picture, heard = normal(1, 257, SIZES.clip_dim), normal(1, 1, 9, audio.window, audio.layers, audio.channels)
    call = normal(1, 3, 4, 4, 16), normal(1, 3, 4, 4, 20), jnp.asarray([400.0]), normal(1, dit.text_len, dit.text_dim)
    forward = jax.jit(lambda p: apply(DiT(dit), p, *call, picture, heard, method="train"))
    one, other = forward(beside), forward(merged)
    assert np.abs(one - forward(weights.read("dit", mesh, jnp.float32))).max() > 1e-2
    np.testing.assert_allclose(one, other, atol=2e-5)  # float32; (x·down)·up against x·(down·up)


def test_the_last_weights_or_those_of_a_step_that_is_named(weights, checkpoint, mesh, tmp_path):
    """Here without an average."""
    run, last, average = save_run(tmp_path / "run", weights, "audio", mesh, checkpoint=checkpoint, ema=0.0, steps=(3, 7))
    assert average is None
    of = lambda folder: read(result.open_weights(folder, []), mesh)
    newest, named, earlier = of(run), of(run / "checkpoints/7"), of(run / "checkpoints/3")
    for path, value in last.items():
        np.testing.assert_array_equal(newest[path], value)
        np.testing.assert_array_equal(named[path], value)
        assert not np.array_equal(earlier[path], value)


def test_checkpoints_that_lie_elsewhere_tell_what_they_are_of(weights, checkpoint, mesh, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    run, _, average = save_run(
        tmp_path / "run", weights, "audio", mesh, checkpoint=checkpoint, steps=(3, 7), elsewhere=elsewhere
    )
    assert not (run / "checkpoints").exists()
    for given in (run, elsewhere, elsewhere / "7"):
        read = result.open_weights(given, []).read("dit", mesh, jnp.float32, "audio_adapter/proj1/kernel".__eq__)
        np.testing.assert_array_equal(flat(read)["audio_adapter/proj1/kernel"], average["audio_adapter/proj1/kernel"])
    # the machine with the run's own folder is gone: another run does not go on with these
    other = replace(TINY, run=str(tmp_path / "new"), checkpoint=str(checkpoint), seed=1)
    with pytest.raises(UserError, match=r"elsewhere holds a run with other settings(.|\n)*seed: was 0, now 1"):
        run_folder.create_or_check(replace(other, checkpoints=replace(TINY.checkpoints, folder=str(elsewhere))), weights)


def test_a_run_does_not_start_over_because_its_checkpoints_are_elsewhere(trained, weights, checkpoint, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    at = lambda folder, place="": settings_of(folder, "audio", checkpoint=checkpoint, elsewhere=place)
    run = Path(shutil.copytree(trained("audio").folder, tmp_path / "run"))
    before = (run / "config.json").read_bytes()
    with pytest.raises(UserError, match=f"the checkpoints of {run} are in {run}/checkpoints, but {elsewhere} holds none"):
        run_folder.create_or_check(at(run, elsewhere), weights)
    assert (run / "config.json").read_bytes() == before and not elsewhere.exists()

    shutil.move(run / "checkpoints", elsewhere)
    run_folder.create_or_check(at(run, elsewhere), weights)
    assert result.open_result(run).folder == elsewhere / "7/state"  # wherever the run is used it is known, too
    (run / "checkpoints").mkdir()
    with pytest.raises(UserError, match=f"are in {elsewhere}, but {run}/checkpoints .* give the same --checkpoints.folder"):
        run_folder.create_or_check(at(run), weights)

    (run / "checkpoints").rmdir()
    shutil.move(elsewhere, run / "checkpoints")
    run_folder.create_or_check(at(run), weights)
    assert result.open_result(run).folder == run / "checkpoints/7/state"
    moved_run = Path(shutil.move(run, tmp_path / "moved run"))
    for place in ("", moved_run / "checkpoints"):
        run_folder.create_or_check(at(moved_run, place), weights)
    moved_again = Path(shutil.move(moved_run, tmp_path / "moved again"))
    run_folder.create_or_check(at(moved_again), weights)  # although named when it was in another folder
    assert result.open_result(moved_again).folder == moved_again / "checkpoints/7/state"


def test_checkpoints_may_lie_in_a_bucket(trained, tmp_path):
    address = "gs://bucket/runs/first"
    assert os.fspath(folder_of(replace(TINY, checkpoints=Checkpoints(folder=address)))) == address
    run = tmp_path / "run"
    shutil.copytree(trained("audio").folder, run)
    content = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(content | {"checkpoints": address}))
    with pytest.raises(UserError, match=f"its checkpoints are in {address}. Copy that folder to a local disk"):
        result.open_weights(run, [])


def test_a_run_may_begin_from_another(trained, weights, mesh, tmp_path):
    """A second stage: LoRA on top of audio parts. Its encoders are still those that the records were made with."""
    first, _, audio = trained("audio")
    begun = result.open_weights(first, [])
    second, _, updates = save_run(tmp_path / "run", begun, "lora", mesh, checkpoint=first)
    found = result.open_weights(second, [])
    expected = with_updates(read(weights, mesh) | audio, updates)
    for path, value in read(found, mesh).items():
        np.testing.assert_allclose(value, expected[path], atol=1e-6, err_msg=path)
    assert found.encoders == begun.encoders == weights.encoders
    assert len({found.identity, begun.identity, weights.identity}) == 3
    assert result.preset_at(second) == PRESET


def test_values_are_cast_to_the_type_of_what_they_replace(checkpoint, mesh, tmp_path):
    """A run from weights in bfloat16 gives files in bfloat16."""
    files, half = stored.open_checkpoint(checkpoint), tmp_path / "half"
    tree = parameters.nested({path: x.astype(jnp.dtype("bfloat16")) for path, x in files.tensors.items()})
    stored.save(half, tree, stored.read_metadata(checkpoint))
    run, _, average = save_run(tmp_path / "run", result.open_weights(half, []), "audio", mesh, checkpoint=half)
    result.export(run, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / INFINITETALK)
    assert {x.dtype for x in tensors.values()} == {jnp.dtype("bfloat16")}
    kernel = np.asarray(average["blocks/audio_q/kernel"])[1].T.astype(jnp.bfloat16)
    np.testing.assert_array_equal(tensors["blocks.1.audio_cross_attn.q_linear.weight"], kernel)


def test_what_cannot_be_opened_is_said(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained("audio").folder, run)
    with pytest.raises(UserError, match="checkpoints/5 is not a checkpoint of a run"):
        result.open_weights(run / "checkpoints/5", [])
    with pytest.raises(UserError, match="already exists"):
        result.export(run, tmp_path)
    file = run / "config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"checkpoint": str(tmp_path / "gone")}))
    with pytest.raises(UserError, match=r"the initial weights of .* are missing from .*gone: restore them"):
        result.open_weights(run, [])
    file.write_text("{")
    with pytest.raises(UserError, match=r"config.json cannot be read .* it records the initial weights of .*run"):
        result.open_weights(run, [])
    file.write_text(json.dumps(content))
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    with pytest.raises(UserError, match="has no checkpoint yet"):
        result.open_weights(run, [])
    with pytest.raises(UserError, match=r"not a checkpoint made by convert_weights.py"):
        result.open_weights(tmp_path, [])


@pytest.mark.slow
def test_a_run_and_its_official_files_make_the_same_video(trained, recordings, tmp_path):
    run, *_ = trained("audio")
    result.export(run, tmp_path / "out")
    official = recordings / "checkpoint"
    wan, wav2vec2 = str(official / WAN), str(official / "chinese-wav2vec2-base")
    files = ["--ckpt_dir", wan, "--wav2vec_dir", wav2vec2, "--infinitetalk_dir", str(tmp_path / "out" / INFINITETALK)]
    frames = []
    for number, weights in enumerate((["--checkpoint", str(run)], files)):
        saved = tmp_path / f"{number}.npy"
        flags = ["--frame_num", "5", "--motion_frame", "1", "--sample_steps", "2", "--dtype", "float32", "--prompt", "hello"]
        flags += ["--image", str(recordings / "media/face.png"), "--audio", str(recordings / "media/a16000.wav")]
        flags += ["--save_frames", str(saved), "--save_file", str(tmp_path / f"{number}.mp4")]
        assert infer.main([*weights, *flags]) == 0
        frames.append(np.load(saved))
    np.testing.assert_array_equal(frames[0], frames[1])
