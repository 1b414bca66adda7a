"""LoRA: what is merged is what the official code merges, slice by slice, and what does not fit is named."""

import contextlib
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from itjax.errors import UserError
from itjax.weights.load import leaves
from itjax.weights.lora import LoraFile, with_loras
from itjax.weights.lora_names import DIFFUSERS, module_names
from itjax.weights.torch_files import TensorFiles

Q = "blocks.0.self_attn.q"


def normal(*shape: int) -> np.ndarray:
    """Always the same numbers for a shape, whichever tests run before."""
    return np.random.default_rng(shape).standard_normal(shape, np.float32)


DOWN, UP = normal(4, 96), normal(96, 4)


@pytest.fixture(scope="module")
def dit(tiny_files):
    return tiny_files["dit"]


@pytest.fixture(scope="module")
def lora(recordings) -> Path:
    return recordings / "modules" / "lora.safetensors"


@pytest.fixture
def written(tmp_path):
    """written({key: array}) -> the file with them"""

    def write(tensors: dict, name: str = "lora.safetensors") -> Path:
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, tmp_path / name)
        return tmp_path / name

    return write


def test_merged_as_the_official_code_does(dit, lora, recordings):
    merged = load_file(recordings / "modules" / "lora_merged_scale_0.8.safetensors")
    files = with_loras(dit, [LoraFile(lora, 0.8)])
    assert files.shapes() == dit.shapes()
    for name in files.names():
        if name in merged:
            # float32 both; the order of the four products' sum differs
            np.testing.assert_allclose(files.read(name), merged[name], rtol=0, atol=1e-6)
            assert np.abs(merged[name] - dit.read(name)).max() > 1e-3
        else:
            np.testing.assert_array_equal(files.read(name), dit.read(name), strict=True)


def test_slices(dit, lora, tiny_parts):
    """A shard of a merged stack is the part of the whole merged stack; merging a part sums as merging the whole does."""
    found = leaves(tiny_parts["dit"], with_loras(dit, [LoraFile(lora, 0.8)]), "the DiT")
    cut = (slice(0, 2), slice(10, 50), slice(24, 72))
    for path in (
        "blocks/q/kernel",
        "blocks/cross_k_img/kernel",
        "blocks/ffn_in/kernel",
        "blocks/norm3/scale",
        "text_in/kernel",
    ):
        index = cut[: len(found[path].shape)]
        np.testing.assert_allclose(found[path].read(index), found[path].read(())[index], rtol=0, atol=1e-6)


def test_several_files_add_up(dit, lora, written):
    second = written({f"diffusion_model.{Q}.lora_down.weight": DOWN, f"diffusion_model.{Q}.lora_up.weight": UP})
    name = f"{Q}.weight"
    one, both = with_loras(dit, [LoraFile(lora, 0.8)]), with_loras(dit, [LoraFile(lora, 0.8), LoraFile(second, 0.5)])
    np.testing.assert_allclose(both.read(name), one.read(name) + 0.5 * UP @ DOWN, rtol=0, atol=1e-5)
    assert with_loras(dit, []).read(name).tobytes() == dit.read(name).tobytes()


@pytest.mark.parametrize("prefix", ["diffusion_model.", "model.diffusion_model.", "transformer.", ""])
@pytest.mark.parametrize(("down", "up"), [("lora_down", "lora_up"), ("lora_A", "lora_B")])
def test_names(prefix, down, up, dit, written):
    file = written({f"{prefix}{Q}.{down}.weight": DOWN, f"{prefix}{Q}.{up}.weight": UP})
    found = with_loras(dit, [LoraFile(file, 1.0)]).read(f"{Q}.weight")
    np.testing.assert_allclose(found, dit.read(f"{Q}.weight") + UP @ DOWN, rtol=0, atol=1e-5)


# The same pairs, as tools name them: those of the layers, and the ends of `down` and `up`
PLAIN = ("blocks.1.self_attn.o", "blocks.0.cross_attn.k_img", "blocks.2.ffn.0", "img_emb.proj.3", "head.head")
IN_DIFFUSERS = (
    *("blocks.1.attn1.to_out.0", "blocks.0.attn2.add_k_proj", "blocks.2.ffn.net.0.proj"),
    *("condition_embedder.image_embedder.ff.net.2", "proj_out"),
)
FLAT = tuple(name.replace(".", "_") for name in PLAIN)
LAYOUTS = {
    "DiffSynth": (PLAIN, "", ".lora_A.default.weight", ".lora_B.default.weight"),
    "DiffSynth, with its pipeline": (PLAIN, "pipe.dit.", ".lora_A.default.weight", ".lora_B.default.weight"),
    "PEFT": (PLAIN, "base_model.model.", ".lora_A.weight", ".lora_B.weight"),
    "kohya": (FLAT, "lora_unet_", ".lora_down.weight", ".lora_up.weight"),
    "VideoX-Fun": (FLAT, "lora_unet__", ".lora_down.weight", ".lora_up.weight"),
    "Diffusers": (IN_DIFFUSERS, "transformer.", ".lora_A.weight", ".lora_B.weight"),
    "Diffusers before PEFT": (IN_DIFFUSERS, "transformer.", ".lora.down.weight", ".lora.up.weight"),
    "without .weight": (PLAIN, "diffusion_model.", ".lora_A", ".lora_B"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("modules", "prefix", "down", "up"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_layouts_of_other_tools_give_the_same(modules, prefix, down, up, dit, written):
    shapes = [dit.shape(f"{module}.weight") for module in PLAIN]
    pairs = [(normal(4, i), normal(o, 4)) for o, i in shapes]

    def merged(modules, prefix, down, up):
        stems = {f"{prefix}{module}": pair for module, pair in zip(modules, pairs, strict=True)}
        tensors = {f"{stem}.alpha": np.float32(2)[...] for stem in stems}
        for stem, pair in stems.items():
            tensors |= {stem + down: pair[0], stem + up: pair[1]}
        return with_loras(dit, [LoraFile(written(tensors), 0.5, apply_alpha=True)])

    plain = merged(PLAIN, "diffusion_model.", ".lora_down.weight", ".lora_up.weight")
    expected = {f"{module}.weight": plain.read(f"{module}.weight") for module in PLAIN}
    found = merged(modules, prefix, down, up)
    for name in dit.names():
        np.testing.assert_array_equal(found.read(name), expected.get(name, dit.read(name)), err_msg=name, strict=True)


def test_all_names_of_a_module_are_distinct(dit):
    modules = {name.rpartition(".")[0] for name in dit.names()}
    names = module_names(dit.names())
    assert set(names.values()) == modules and all(names[module] == module for module in modules)
    block = {module for module in modules if module.startswith("blocks.0.")}
    for other in ("attn1.norm_k", "attn2.to_v", "attn2.add_v_proj", "attn2.norm_added_k", "norm2", "ffn.net.2"):
        assert names[f"blocks.0.{other}"] == names[f"blocks_0_{other}".replace(".", "_")] in block
    used = {*DIFFUSERS} & {module.removeprefix("blocks.0.") for module in modules}
    assert used == {*DIFFUSERS} and len({*DIFFUSERS.values()}) == len(DIFFUSERS)


def test_a_pair_of_convolutions(dit, written):
    down, up = normal(4, 36, 1, 2, 2), normal(96, 4, 1, 1, 1)
    file = written({"patch_embedding.lora_down.weight": down, "patch_embedding.lora_up.weight": up})
    files = with_loras(dit, [LoraFile(file, 0.5)])
    delta = 0.5 * (up.reshape(96, 4) @ down.reshape(4, -1)).reshape(96, 36, 1, 2, 2)
    expected = dit.read("patch_embedding.weight") + delta
    np.testing.assert_allclose(files.read("patch_embedding.weight"), expected, rtol=0, atol=1e-5)
    part = (slice(8, 32), slice(0, 5), slice(None), slice(1, 2))
    np.testing.assert_allclose(files.read("patch_embedding.weight", part), expected[part], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (f"{Q}.dora_scale", "DoRA"),
        (f"base_model.model.{Q}.lora_magnitude_vector.default.weight", "DoRA"),
        (f"{Q}.lora_mid.weight", "LoCon with a Tucker decomposition"),
        ("lora_unet_blocks_0_ffn_0.hada_w1_a", "LoHa"),
        ("blocks.0.ffn.0.lokr_w1", "LoKr"),
        ("blocks.0.ffn.0.oft_diag", "OFT"),
    ],
)
def test_keys_that_change_what_a_pair_means_are_refused(key, kind, dit, written):
    file = written({f"{Q}.lora_down.weight": DOWN, f"{Q}.lora_up.weight": UP, key: DOWN})
    with pytest.raises(UserError, match=rf"lora\.safetensors has {key}: {kind} is not supported"):
        with_loras(dit, [LoraFile(file)])


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("apply_alpha", [False, True])
def test_alpha_is_ignored_with_a_warning_or_applied(apply_alpha, shape, dit, written):
    alpha = np.full(shape, 2, np.float32)
    file = written({f"{Q}.lora_down.weight": DOWN, f"{Q}.lora_up.weight": UP, f"{Q}.alpha": alpha})
    ignored = r"lora.safetensors: alpha / rank is not 1 in 1 pair\(s\) \(the first: 0.5\) and is ignored.*--lora_alpha apply"
    with contextlib.nullcontext() if apply_alpha else pytest.warns(UserWarning, match=ignored):
        found = with_loras(dit, [LoraFile(file, 0.5, apply_alpha)]).read(f"{Q}.weight")
    scale = 0.5 * (2 / 4 if apply_alpha else 1)
    np.testing.assert_allclose(found, dit.read(f"{Q}.weight") + scale * UP @ DOWN, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("error")
def test_an_alpha_that_is_the_rank_needs_no_warning(dit, written):
    file = written({f"{Q}.lora_down.weight": DOWN, f"{Q}.lora_up.weight": UP, f"{Q}.alpha": np.float32(len(DOWN))[...]})
    ignored, applied = (with_loras(dit, [LoraFile(file, 0.5, apply)]).read(f"{Q}.weight") for apply in (False, True))
    assert ignored.tobytes() == applied.tobytes()


def test_a_pair_and_a_difference_of_one_tensor_both_count(dit, written):
    difference = normal(96, 96)
    file = written({f"{Q}.lora_down.weight": DOWN, f"{Q}.lora_up.weight": UP, f"{Q}.diff": difference})
    found = with_loras(dit, [LoraFile(file, 1.0)]).read(f"{Q}.weight")
    np.testing.assert_allclose(found, dit.read(f"{Q}.weight") + UP @ DOWN + difference, rtol=0, atol=1e-5)


def test_modulation_and_convolution_take_differences(dit, written):
    modulation, patch = normal(1, 6, 96), normal(96, 36, 1, 2, 2)
    file = written({"diffusion_model.blocks.1.diff_m": modulation, "diffusion_model.patch_embedding.diff": patch})
    files = with_loras(dit, [LoraFile(file, 1.0)])
    for name, difference in (("blocks.1.modulation", modulation), ("patch_embedding.weight", patch)):
        np.testing.assert_allclose(files.read(name), dit.read(name) + difference, rtol=0, atol=1e-6)


def test_float8_becomes_bfloat16_where_a_delta_is_added(dit, written, tiny_parts):
    """A delta of a hundredth of the weights is less than half a step of float8."""
    name = f"{Q}.weight"
    eight = TensorFiles({key: tensor.astype(np.dtype(ml_dtypes.float8_e4m3fn)) for key, tensor in dit.tensors.items()})
    base = eight.read(name).astype(np.float32)
    down, up = DOWN[:1], np.abs(base).mean() / 100 * np.ones_like(UP[:, :1])
    files = with_loras(eight, [LoraFile(written({f"{Q}.lora_down.weight": down, f"{Q}.lora_up.weight": up}))])
    expected = (base + up @ down).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(files.read(name), expected, strict=True)
    found = leaves(tiny_parts["dit"], files, "the DiT")
    assert (found["blocks/q/kernel"].dtype, found["blocks/k/kernel"].dtype) == ("bfloat16", "float8_e4m3fn")
    np.testing.assert_array_equal(found["blocks/q/kernel"].read(())[0], expected.T, strict=True)


def test_no_match_is_an_error_that_names_the_keys(dit, written):
    file = written({"unet.down.0.lora_down.weight": DOWN, "unet.down.0.lora_up.weight": UP})
    with pytest.raises(UserError, match=r"lora\.safetensors matches no tensor.*unet\.down\.0\.lora_down\.weight"):
        with_loras(dit, [LoraFile(file, 1.0)])


def test_a_partial_match_is_a_warning_that_names_the_keys(dit, written):
    file = written({f"{Q}.lora_down.weight": DOWN, f"{Q}.lora_up.weight": UP, "blocks.9.norm3.diff": DOWN, "odd": UP})
    with pytest.warns(UserWarning, match=r"2 key\(s\) match no tensor.*blocks\.9\.norm3\.diff, odd"):
        files = with_loras(dit, [LoraFile(file, 1.0)])
    assert np.abs(files.read(f"{Q}.weight") - dit.read(f"{Q}.weight")).max() > 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = written({f"{Q}.lora_down.weight": DOWN, f"{Q}.lora_up.weight": UP}, "whole.safetensors")
        with_loras(dit, [LoraFile(str(whole))])


@pytest.mark.parametrize(("present", "absent"), [("lora_up", "lora_down"), ("lora_down", "lora_up"), ("lora_A", "lora_B")])
def test_half_a_pair_is_an_error(present, absent, dit, written):
    tensors = {"blocks.1.norm3.diff": DOWN[0], f"{Q}.{present}.weight": UP if present == "lora_up" else DOWN}
    with pytest.raises(UserError, match=rf"has {Q}\.{present}\.weight but not {Q}\.{absent}\.weight"):
        with_loras(dit, [LoraFile(written(tensors), 1.0)])


@pytest.mark.parametrize(
    ("tensors", "shapes"),
    [
        ({f"{Q}.lora_down.weight": DOWN[:, :50], f"{Q}.lora_up.weight": UP}, r"shape \[96, 50\], but .* has \[96, 96\]"),
        ({f"{Q}.lora_down.weight": DOWN[:3], f"{Q}.lora_up.weight": UP}, r"shape \[96, 4, 3, 96\], but .* has \[96, 96\]"),
        ({f"{Q}.diff": DOWN}, r"shape \[4, 96\], but .* has \[96, 96\]"),
    ],
    ids=["columns", "rank", "difference"],
)
def test_another_shape_is_an_error_with_both_shapes(tensors, shapes, dit, written):
    with pytest.raises(UserError, match=shapes):
        with_loras(dit, [LoraFile(written(tensors), 1.0)])


def changed(values: np.ndarray, value: float) -> np.ndarray:
    values = values.copy()
    values.flat[1] = value
    return values


BAD = {
    "NaN": ({"lora_down.weight": changed(DOWN, np.nan)}, r"lora_down\.weight has values that are NaN"),
    "infinity": ({"lora_up.weight": changed(UP, -np.inf)}, r"lora_up\.weight has values that are NaN"),
    "1e38": ({"lora_up.weight": changed(UP, 1e38)}, r"lora_up\.weight has values that are NaN"),
    "rank 0": ({"lora_down.weight": DOWN[:0], "lora_up.weight": UP[:, :0]}, r"gives the shape \[96, 0, 0, 96\]"),
    "rank 0 with alpha": (
        {"lora_down.weight": DOWN[:0], "lora_up.weight": UP[:, :0], "alpha": np.float32(1)[...]},
        "without a rank",
    ),
    "a vector with alpha": ({"lora_down.weight": DOWN[0], "alpha": np.float32(1)[...]}, "gives the shape"),
    "alpha NaN": ({"alpha": np.float32(np.nan)[...]}, r"alpha is nan"),
    "alpha 1e38": ({"alpha": np.float32(1e38)[...]}, r"alpha is 1e\+38|alpha is 9\.9"),
    "two alphas": ({"alpha": np.ones(2, np.float32)}, r"alpha must be one number, but is float32\[2\]"),
    "no alpha in it": ({"alpha": np.ones(0, np.float32)}, r"alpha must be one number, but is float32\[0\]"),
    "integers": ({"lora_down.weight": DOWN.astype(np.int32)}, r"lora_down\.weight is of type int32"),
}


@pytest.mark.parametrize(("parts", "message"), BAD.values(), ids=BAD)
def test_strange_values_are_refused_when_it_is_opened(parts, message, dit, written):
    pair = {"lora_down.weight": DOWN, "lora_up.weight": UP} | parts
    with pytest.raises(UserError, match=rf"lora\.safetensors.*{Q}\..*{message}"):
        with_loras(dit, [LoraFile(written({f"{Q}.{key}": np.asarray(value) for key, value in pair.items()}), 1.0)])


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, 1e39])
def test_scales_that_are_no_usual_number(scale, dit, lora):
    with pytest.raises(UserError, match=r"--lora_scale .*must be a usual number"):
        with_loras(dit, [LoraFile(lora, scale)])


def test_sums_that_are_too_large_name_the_tensor_and_the_file(dit, written):
    file = written({f"{Q}.lora_down.weight": DOWN * 1e6, f"{Q}.lora_up.weight": UP * 1e6})
    files = with_loras(dit, [LoraFile(file, 1.0)])
    with pytest.raises(UserError, match=rf"{Q}\.weight with the LoRA .*lora\.safetensors has values"):
        files.read(f"{Q}.weight")
