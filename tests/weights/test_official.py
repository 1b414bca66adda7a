"""Sets of official files in all the forms that are about, and what is said before anything long starts."""

import re
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from itjax.errors import UserError
from itjax.weights.official import check_all, companion_files, open_official
from itjax.weights.torch_files import TensorFiles

SHARD = "diffusion_pytorch_model-00002-of-00002.safetensors"
INDEX = "diffusion_pytorch_model.safetensors.index.json"


def merge_shards(copied, name: str) -> None:
    shards = sorted(copied.ckpt_dir.glob("diffusion_pytorch_model-*.safetensors"))
    whole = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    for file in (*shards, copied.ckpt_dir / INDEX):
        file.unlink()
    save_file(whole, copied.ckpt_dir / name)


def test_what_belongs_to_what(tiny_files, tiny_parts):
    assert set(tiny_files) == {"dit", "vae", "umt5", "clip", "wav2vec2"} == set(tiny_parts)
    check_all(tiny_parts, tiny_files)
    files = {tensor.file.name for tensor in tiny_files["dit"].tensors.values()}
    assert files == {SHARD.replace("00002-", "00001-"), SHARD, "infinitetalk.safetensors"}


def test_a_dit_in_a_single_safetensors_file(copied, tiny_files, assert_equal_files):
    merge_shards(copied, "diffusion_pytorch_model.safetensors")
    assert_equal_files(open_official(*copied)["dit"], tiny_files["dit"])


def test_shards_whose_index_is_lost(copied, tiny_files, assert_equal_files):
    (copied.ckpt_dir / INDEX).unlink()
    assert_equal_files(open_official(*copied)["dit"], tiny_files["dit"])


@pytest.mark.parametrize("name", ["whole.safetensors", "whole.pth", "plain.pth"])
def test_a_whole_dit_in_place_of_both(name, tiny_official, tiny_files, tmp_path, assert_equal_files):
    tensors = {key: tiny_files["dit"].read(key) for key in tiny_files["dit"].names()}
    if name.endswith(".pth"):
        torch = pytest.importorskip("torch")
        state = {key: torch.from_numpy(value) for key, value in tensors.items()}
        torch.save(state if name == "plain.pth" else {"state_dict": state}, tmp_path / name)
    else:
        save_file(tensors, tmp_path / name)
    found = open_official(tiny_official.ckpt_dir, tiny_official.wav2vec_dir, None, tmp_path / name)
    assert_equal_files(found["dit"], tiny_files["dit"])


def test_a_single_file_of_wan_with_that_of_infinitetalk(copied, tiny_files, assert_equal_files):
    merge_shards(copied, "base.safetensors")
    base = copied.ckpt_dir / "base.safetensors"
    assert_equal_files(open_official(*copied, base)["dit"], tiny_files["dit"])
    with pytest.raises(
        UserError, match=r"--dit_path: .*base\.safetensors has no audio parts.*: add them by --infinitetalk_dir"
    ):
        open_official(copied.ckpt_dir, copied.wav2vec_dir, None, base)


def test_a_whole_dit_and_a_file_that_is_not_used(tiny_official, tiny_files, tmp_path, assert_equal_files):
    whole = tmp_path / "whole.safetensors"
    save_file({key: tiny_files["dit"].read(key) for key in tiny_files["dit"].names()}, whole)
    with pytest.warns(
        UserWarning, match=r"--infinitetalk_dir .*infinitetalk\.safetensors is not used: .*whole\.safetensors has"
    ):
        found = open_official(*tiny_official, whole)
    assert_equal_files(found["dit"], tiny_files["dit"])


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model."])
def test_a_prefix_before_all_names(prefix, copied, tiny_files, assert_equal_files):
    merge_shards(copied, "diffusion_pytorch_model.safetensors")
    for file in (copied.infinitetalk, copied.ckpt_dir / "diffusion_pytorch_model.safetensors"):
        save_file({f"{prefix}{name}": tensor for name, tensor in load_file(file).items()}, file)
    assert_equal_files(open_official(*copied)["dit"], tiny_files["dit"])


@pytest.mark.parametrize("ending", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("shape", [(), (1,), (96,), (96, 1)])
def test_float8_with_scales(ending, shape, copied):
    tensors, module, rng = load_file(copied.infinitetalk), "blocks.1.audio_cross_attn.proj", np.random.default_rng(0)
    eight, scale = tensors[f"{module}.weight"].astype(ml_dtypes.float8_e4m3fn), rng.random(shape, np.float32)
    extra = {"scaled_fp8": np.zeros(2, ml_dtypes.float8_e4m3fn), f"{module}.scale_input": np.ones(1, np.float32)}
    save_file(tensors | extra | {f"{module}.weight": eight, f"{module}.{ending}": np.asarray(scale)}, copied.infinitetalk)
    found = open_official(*copied)["dit"].tensors
    expected = (eight.astype(np.float32) * (scale.reshape(-1, 1) if shape else scale)).astype(ml_dtypes.bfloat16)
    weight = found[f"{module}.weight"]
    assert weight.dtype == ml_dtypes.bfloat16 and found.keys() >= tensors.keys() and not found.keys() & extra.keys()
    np.testing.assert_array_equal(weight.read(()), expected, strict=True)
    part = (slice(9, 40), slice(3, 5))
    np.testing.assert_array_equal(weight.read(part), expected[part], strict=True)


QUANTISED = {
    "quanto": (
        {"weight._data": np.ones((96, 96), np.int8), "weight._scale": np.ones((96, 1), np.float32)},
        r"weight\._(data|scale)",
    ),
    "int8": ({"weight": np.ones((96, 96), np.int8), "weight_scale": np.ones((96, 1), np.float32)}, "weight_scale"),
    "blocks": ({"weight": np.ones((96, 48), np.uint8), "weight_scale": np.ones((96, 6), np.float32)}, "weight_scale"),
    "no weight": ({"scale_weight": np.ones(1, np.float32)}, "scale_weight"),
    "ComfyUI, by JSON": ({"comfy_quant": np.zeros(9, np.uint8)}, "comfy_quant"),
}


@pytest.mark.parametrize(("parts", "seen"), QUANTISED.values(), ids=QUANTISED)
def test_quantised_in_another_way(parts, seen, copied):
    module = "blocks.1.audio_cross_attn.proj"
    tensors = {name: tensor for name, tensor in load_file(copied.infinitetalk).items() if name != f"{module}.weight"}
    save_file(tensors | {f"{module}.{name}": tensor for name, tensor in parts.items()}, copied.infinitetalk)
    message = rf"--infinitetalk_dir: .*infinitetalk\.safetensors is quantised .*{seen} .*use the published Wan2\.1"
    with pytest.raises(UserError, match=message):
        open_official(*copied)


def test_infinitetalk_may_be_named_by_its_folder(tiny_official, tiny_files, assert_equal_files):
    found = open_official(tiny_official.ckpt_dir, tiny_official.wav2vec_dir, tiny_official.infinitetalk.parent)
    assert_equal_files(found["dit"], tiny_files["dit"])


def test_a_folder_with_several_files_has_to_be_narrowed(copied):
    shutil.copyfile(copied.infinitetalk, copied.infinitetalk.parent / "other.safetensors")
    with pytest.raises(
        UserError, match=r"--infinitetalk_dir: .* several tensor files.*infinitetalk\.safetensors, other\.safetensors"
    ):
        open_official(copied.ckpt_dir, copied.wav2vec_dir, copied.infinitetalk.parent)


def test_wav2vec2_with_a_head_and_older_names(copied, tiny_files, tiny_parts):
    """A file saved as Wav2Vec2ForPreTraining by a torch before 2.1."""
    file = copied.wav2vec_dir / "model.safetensors"
    published = load_file(file)
    older = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
    renamed = {}
    for name, tensor in published.items():
        for now, before in older.items():
            name = name.replace(now, before)
        renamed[f"wav2vec2.{name}"] = tensor
    assert {"wav2vec2.encoder.pos_conv_embed.conv.weight_g", "wav2vec2.masked_spec_embed"} <= renamed.keys()
    heads = {
        name: np.ones(3, np.float32)
        for name in ("quantizer.codevectors", "project_hid.bias", "project_q.bias", "lm_head.bias")
    }
    save_file(renamed | heads, file)
    found = open_official(*copied)["wav2vec2"]
    check_all({"wav2vec2": tiny_parts["wav2vec2"]}, {"wav2vec2": found})
    assert set(found.names()) == set(tiny_files["wav2vec2"].names()) | heads.keys()
    for name, tensor in published.items():
        np.testing.assert_array_equal(found.read(name), tensor, strict=True)


def test_wav2vec2_as_a_pickle(copied, tiny_files, assert_equal_files):
    torch = pytest.importorskip("torch")
    file = copied.wav2vec_dir / "model.safetensors"
    state = {name: torch.from_numpy(tensor) for name, tensor in load_file(file).items()}
    torch.save(state, copied.wav2vec_dir / "pytorch_model.bin")
    file.unlink()
    assert_equal_files(open_official(*copied)["wav2vec2"], tiny_files["wav2vec2"])


def test_wav2vec2_names_twice(copied):
    file = copied.wav2vec_dir / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"wav2vec2.encoder.layer_norm.bias": tensors["encoder.layer_norm.bias"]}, file)
    with pytest.raises(UserError, match=r"--wav2vec_dir: .* twice"):
        open_official(*copied)


def test_all_missing_files_are_named_at_once_with_their_flags(copied):
    gone = (SHARD, "Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl/tokenizer.json")
    for name in gone:
        (copied.ckpt_dir / name).unlink()
    copied.infinitetalk.unlink()
    (copied.wav2vec_dir / "model.safetensors").unlink()
    with pytest.raises(UserError) as error:
        open_official(*copied)
    lines = str(error.value).splitlines()[1:]
    for name in gone:
        assert name in str(error.value)
    assert [line.split(":")[0].strip() for line in lines if line.startswith("  --")] == [
        *("--ckpt_dir", "--infinitetalk_dir", "--ckpt_dir", "--ckpt_dir", "--wav2vec_dir", "--ckpt_dir")
    ]


def test_a_folder_that_is_none_is_said_once(copied):
    with pytest.raises(UserError) as error:
        open_official(Path("/nowhere"), copied.wav2vec_dir, copied.infinitetalk)
    assert str(error.value).count("--ckpt_dir: /nowhere is not a folder") == len(str(error.value).splitlines()) - 1 == 1


def test_a_tensor_in_both_the_base_and_the_audio_file(copied):
    tensors = load_file(copied.infinitetalk)
    save_file(tensors | {"head.head.bias": np.zeros(64, np.float32)}, copied.infinitetalk)
    with pytest.raises(UserError, match=r"--infinitetalk_dir: .*infinitetalk\.safetensors has head\.head\.bias"):
        open_official(*copied)


def test_tensors_missing_left_over_and_of_a_wrong_shape_are_named_for_all_networks(tiny_parts, tiny_files):
    files = {network: dict(found.tensors) for network, found in tiny_files.items()}
    files["dit"]["surplus"] = files["dit"].pop("head.head.weight")
    files["vae"]["conv1.bias"] = files["vae"]["conv2.bias"]
    with pytest.raises(UserError) as error:
        check_all(tiny_parts, {network: TensorFiles(tensors) for network, tensors in files.items()})
    message = str(error.value)
    assert re.search(r"dit: .*infinitetalk\.safetensors.* does not contain", message)
    assert "1 missing: head.head.weight [64, 96]" in message and "1 unexpected: surplus [64, 96]" in message
    assert re.search(r"vae: .*Wan2\.1_VAE\.pth does not contain", message)
    assert "1 with a wrong shape: conv1.bias: expected [32], found [16]" in message
    assert not re.search("^(umt5|clip|wav2vec2):", message, re.MULTILINE)


def test_companion_files(tiny_official):
    found = companion_files(tiny_official.ckpt_dir, tiny_official.wav2vec_dir)
    assert {
        "config.json",
        "google/umt5-xxl/tokenizer.json",
        "chinese-wav2vec2-base/preprocessor_config.json",
    } <= found.keys()
    assert len(found) == 7 and all(file.is_file() for file in found.values())
