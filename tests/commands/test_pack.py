"""Weights that come with the package: packing them, finding them, and infer.py with nothing but a preset's name."""

import shutil
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from itjax import configs, small
from itjax.commands import flags, from_flags, infer, pack
from itjax.config import Sampler, to_json
from itjax.configs.tiny import PRESET
from itjax.errors import UserError
from itjax.pipeline.request import Request
from itjax.training.assembly import lazy
from itjax.weights import store
from itjax.weights.lazy import LazyTensor
from itjax.weights.official import TOKENIZER, tokenizer_folder
from itjax.weights.sources import open_converted
from itjax.weights.specs import network_specs
from itjax.weights.verify import verify_checkpoint

NAMED = replace(PRESET, name="small")  # as small as can be, under the name of what comes with the package


def random_checkpoint(path: Path, tokenizer: Path) -> None:
    rng, arrays = np.random.default_rng(0), {}
    for network, spec in network_specs(NAMED.networks).items():
        for name, leaf in flatten_dict(spec.abstract, sep="/").items():
            values = rng.normal(size=leaf.shape).astype(np.float32)
            arrays[f"{network}/{name}"] = LazyTensor(values.shape, values.dtype, values.__getitem__)
    store.save(path, unflatten_dict(arrays, sep="/"), to_json(NAMED), {f"{TOKENIZER}/tokenizer.json": tokenizer})


@pytest.fixture(scope="session")
def assembled(made_once, recordings):
    tokenizer = tokenizer_folder(recordings / "checkpoint" / "Wan2.1-I2V-14B-480P") / "tokenizer.json"
    return made_once("assembled", lambda path: random_checkpoint(path, tokenizer))


@pytest.fixture(scope="session")
def packed(made_once, assembled, tmp_path_factory):
    card = tmp_path_factory.mktemp("card") / "MODEL_CARD.md"
    card.write_text("# A card\n")
    return made_once("packed", lambda path: pack.main([str(assembled), "--card", str(card), "--output", str(path)]))


def test_packing_keeps_all_values_in_few_files(assembled, packed):
    before, after = (store.open_checkpoint(folder).tensors for folder in (assembled, packed))
    assert before.keys() == after.keys()
    for path, tensor in before.items():
        assert after[path].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(after[path].read(()), tensor.read(()).astype(ml_dtypes.bfloat16), err_msg=path)
    assert len([path for path in packed.rglob("*") if path.is_file()]) < 50 < len(before)
    assert (packed / "MODEL_CARD.md").read_text() == "# A card\n"


def test_the_vae_of_another_run_is_packed_in_its_place(assembled, tmp_path, capsys):
    branch = lambda folder: {path: t for path, t in store.open_checkpoint(folder).tensors.items() if path.startswith("vae/")}
    doubled = {path: tensor.read(()) * 2 for path, tensor in branch(assembled).items()}
    run, sizes = tmp_path / "run", to_json(NAMED)["networks"]["vae"]
    run.mkdir()
    write = lambda values, folder: store.save(
        folder, unflatten_dict({path: lazy(value) for path, value in values.items()}, sep="/"), {"vae": sizes}
    )
    (run / "result").mkdir()
    write(doubled, run / "result" / "weights")
    assert pack.main([str(assembled), "--vae", str(run), "--output", str(tmp_path / "packed")]) == 0
    tensors = store.open_checkpoint(tmp_path / "packed").tensors
    assert tensors.keys() == store.open_checkpoint(assembled).tensors.keys()
    for path, value in doubled.items():
        np.testing.assert_array_equal(tensors[path].read(()), value.astype(ml_dtypes.bfloat16), err_msg=path)
    longer = {path: np.concatenate([value, value]) for path, value in doubled.items()}
    write(longer, tmp_path / "longer")
    assert pack.main([str(assembled), "--vae", str(tmp_path / "longer"), "--output", str(tmp_path / "no")]) == 2
    assert "networks of other sizes" in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_a_packed_folder_is_a_checkpoint_like_any_other(assembled, packed):
    verify_checkpoint(packed)
    opened = open_converted(packed, [])
    assert opened.preset == replace(NAMED, sampler=configs.named("small").sampler)
    tokenizers = [open_converted(folder, []).tokenizer / "tokenizer.json" for folder in (assembled, packed)]
    assert tokenizers[0].read_bytes() == tokenizers[1].read_bytes()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        restored = flatten_dict(checkpointer.restore(packed), sep="/")
    assert restored.keys() == store.open_checkpoint(packed).tensors.keys()


def test_a_packed_file_that_changed_is_found(packed, tmp_path):
    copy = tmp_path / "copy"
    for file in (path for path in packed.rglob("*") if path.is_file()):
        target = copy / file.relative_to(packed)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    largest = max(copy.rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(UserError, match=largest.name):
        verify_checkpoint(copy)


def test_packing_refuses_what_is_there_and_what_is_not(assembled, packed, tmp_path, capsys):
    assert pack.main([str(assembled), "--output", str(packed)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert pack.main([str(assembled), "--output", str(tmp_path / "x"), "--card", str(tmp_path / "none.md")]) == 2
    assert "none.md: no such file" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_card_never_replaces_a_file_of_the_checkpoint(assembled, tmp_path, capsys):
    (tmp_path / "cards").mkdir()
    for name in ("sizes.json", "checksums.json", "files"):
        card = tmp_path / "cards" / name
        card.write_text("mine")
        assert pack.main([str(assembled), "--output", str(tmp_path / "out"), "--card", str(card)]) == 2
        assert f"--card {card}: the checkpoint has its own {name}" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["cards"]


def test_a_checkpoint_without_a_tokenizer_is_not_packed(assembled, tmp_path, capsys):
    bare = shutil.copytree(assembled, tmp_path / "bare")
    shutil.rmtree(tokenizer_folder(store.companion_files(bare)))
    assert pack.main([str(bare), "--output", str(tmp_path / "out")]) == 2
    assert f"{bare} has no tokenizer: " in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_full_disk_is_told_in_one_sentence(assembled, tmp_path, disk_of, capsys, caplog):
    for nbytes in (0, 2_000, 20_000):
        with disk_of(nbytes):
            status = pack.main([str(assembled), "--output", str(tmp_path / "out")])
        said = capsys.readouterr().err
        assert status == 3 and f"cannot write {tmp_path / 'out'}: " in said and said.count("\n") == 1, said
        assert not caplog.records and not (tmp_path / "out").exists()


# -- infer.py --preset small ------------------------------------------------------------------------------------------


def args_of(*given: object):
    return flags.parser("infer.py").parse_args([*map(str, given)])


def test_an_installation_without_weights_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(small, "files", lambda name: tmp_path)
    with pytest.raises(UserError, match=r"--preset small: this installation of itjax lacks the small model's weights"):
        infer.open_weights(args_of("--preset", "small"))


def test_the_name_of_the_preset_is_enough(monkeypatch, packed):
    monkeypatch.setattr(small, "weights_folder", lambda: packed)
    opened = infer.open_weights(args_of("--preset", "small"))
    assert opened.identity == open_converted(packed, []).identity
    # the networks are those of the checkpoint, the settings those of today
    assert opened.preset.networks == NAMED.networks
    assert opened.preset.sampler == configs.named("small").sampler
    assert opened.preset.sizes == configs.named("small").sizes


def test_other_weights_are_used_if_they_are_named(packed, recordings):
    assert not infer.uses_shipped(args_of("--preset", "small", "--checkpoint", packed))
    assert not infer.uses_shipped(args_of("--preset", "small", "--ckpt_dir", packed))
    assert not infer.uses_shipped(args_of("--preset", "tiny"))
    with pytest.raises(UserError, match=r"no weights: .*--preset small"):
        infer.open_weights(args_of("--preset", "tiny"))


def test_pictures_that_do_not_come_with_the_package_get_a_note(face, capsys):
    infer.say_what_small_knows(face)
    assert "has only seen people as `itjax draw` draws them" in capsys.readouterr().err
    infer.say_what_small_knows(small.__file__)
    assert not capsys.readouterr().err


# -- the preset's sampling settings -----------------------------------------------------------------------------------

REQUEST = Request("p", "face.png", {})
OWN = replace(PRESET, sampler=Sampler(frame_num=33, motion_frames=5, steps=3, text_scale=1.0, color_strength=0.5))


def test_settings_are_those_of_the_preset_unless_given():
    settings = from_flags.settings_of(args_of(), OWN, REQUEST)
    assert settings.sampler == replace(OWN.sampler, shift=7.0)  # the shift is that of the picture size
    assert settings.max_frames == 33
    given = "--frame_num 17 --motion_frame 9 --sample_steps 2 --sample_text_guide_scale 2 --sample_audio_guide_scale 3"
    settings = from_flags.settings_of(args_of(*given.split(), "--color_correction_strength", 0), OWN, REQUEST)
    assert settings.sampler == Sampler(17, 9, 2, 7.0, 2.0, 3.0, 0.0)
    assert settings.max_frames == 17
    assert from_flags.settings_of(args_of("--strategy", "i2v"), OWN, REQUEST).sampler.motion_frames == 1


def test_without_flags_the_published_presets_settings_are_the_official_ones():
    sampler = from_flags.settings_of(args_of(), configs.named("infinitetalk-14b"), REQUEST).sampler
    assert sampler == Sampler(81, 9, 40, 7.0, 5.0, 4.0, 1.0, None, None, "soft")
