"""LoRA: what is merged is what the official code merges, slice by slice, and what does not fit is named."""

import contextlib
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from itjax.errors import UserError
from itjax.weights.load import leaves
from itjax.weights.lora import LoraFile, with_loras

Q = "blocks.0.self_attn.q"
RNG = np.random.default_rng(0)
DOWN, UP = RNG.standard_normal((4, 96), np.float32), RNG.standard_normal((96, 4), np.float32)


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
    difference = RNG.standard_normal((96, 96), np.float32)
    file = written({f"{Q}.lora_down.weight": DOWN, f"{Q}.lora_up.weight": UP, f"{Q}.diff": difference})
    found = with_loras(dit, [LoraFile(file, 1.0)]).read(f"{Q}.weight")
    np.testing.assert_allclose(found, dit.read(f"{Q}.weight") + UP @ DOWN + difference, rtol=0, atol=1e-5)


def test_modulation_and_convolution_take_differences(dit, written):
    modulation, patch = RNG.standard_normal((1, 6, 96), np.float32), RNG.standard_normal((96, 36, 1, 2, 2), np.float32)
    file = written({"diffusion_model.blocks.1.diff_m": modulation, "diffusion_model.patch_embedding.diff": patch})
    files = with_loras(dit, [LoraFile(file, 1.0)])
    for name, difference in (("blocks.1.modulation", modulation), ("patch_embedding.weight", patch)):
        np.testing.assert_allclose(files.read(name), dit.read(name) + difference, rtol=0, atol=1e-6)


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
