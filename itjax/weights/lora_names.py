"""Names in LoRA files: which keys form a pair, and which tensor of the network they change.

Every tool writes the same matrices under names of its own. What they differ in are the rows of the tables here.
"""

import re
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

from itjax.errors import UserError

# Before a module's name. The last two, of kohya's and VideoX-Fun's trainers, precede names with "_" in place of ".".
PREFIXES = (
    *("diffusion_model.", "model.diffusion_model.", "transformer.", "base_model.model.", "pipe.dit.", ""),
    *("lora_unet_", "lora_unet__"),
)

# Endings of the keys of a pair: down, up
PAIR_ENDINGS = (
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    (".lora_A", ".lora_B"),
)
ALPHA_ENDING = ".alpha"

# Ending of a key -> ending of the tensor to which its difference is added
DIFFERENCE_ENDINGS = {".diff": ".weight", ".diff_b": ".bias", ".diff_m": ".modulation"}

# Official name of a module, within its block if it is in one -> Diffusers' name
DIFFUSERS = {
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "self_attn.q": "attn1.to_q",
    "self_attn.k": "attn1.to_k",
    "self_attn.v": "attn1.to_v",
    "self_attn.o": "attn1.to_out.0",
    "self_attn.norm_q": "attn1.norm_q",
    "self_attn.norm_k": "attn1.norm_k",
    "cross_attn.q": "attn2.to_q",
    "cross_attn.k": "attn2.to_k",
    "cross_attn.v": "attn2.to_v",
    "cross_attn.o": "attn2.to_out.0",
    "cross_attn.k_img": "attn2.add_k_proj",
    "cross_attn.v_img": "attn2.add_v_proj",
    "cross_attn.norm_q": "attn2.norm_q",
    "cross_attn.norm_k": "attn2.norm_k",
    "cross_attn.norm_k_img": "attn2.norm_added_k",
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "head.head": "proj_out",
}

# Part of a key that gives a pair another meaning, or takes its place -> kind of file that has it
OTHER_KINDS = {
    ".dora_scale": "DoRA",
    ".lora_magnitude_vector": "DoRA",
    ".lora_mid.": "LoCon with a Tucker decomposition",
    ".hada_": "LoHa",
    ".lokr_": "LoKr",
    ".oft_": "OFT",
}


def check_kind(path: Path, keys: Iterable[str]) -> None:
    """Checks that the keys of a file are those of pairs and differences: others would change what a pair means.

    Raises:
        UserError: if the file is of another kind.
    """
    for key in keys:
        for part, kind in OTHER_KINDS.items():
            if part in key:
                raise UserError(
                    f"the LoRA {path} has {key}: {kind} is not supported, only pairs of two matrices and differences. "
                    "Use a LoRA of these, or merge the file into the weights with the tool that made it."
                )


def module_names(tensors: Iterable[str]) -> dict[str, str]:
    """{each name that LoRA files have for a module: its official name} of the modules that have the `tensors`."""
    modules = {name.rpartition(".")[0] for name in tensors}
    dotted = {name: module for module in modules for name in (_diffusers_name(module), module)}
    return {name.replace(".", "_"): module for name, module in dotted.items()} | dotted


def _diffusers_name(module: str) -> str:
    return re.sub(r"^(blocks\.\d+\.)?(.+)$", lambda found: (found[1] or "") + DIFFUSERS.get(found[2], found[2]), module)


def tensor_name(key: str, ending: str, modules: Mapping[str, str], tensors: Set[str]) -> str | None:
    """The one of `tensors` that a key with this ending changes; None if there is none. `modules`: of `module_names`."""
    stem = key.removesuffix(ending)
    for prefix in PREFIXES:
        module = modules.get(stem.removeprefix(prefix))
        name = f"{module}{DIFFERENCE_ENDINGS.get(ending, '.weight')}"
        if module is not None and name in tensors:
            return name
    return None
