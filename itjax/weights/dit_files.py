"""A DiT's tensors by their official names and with their values, from files that other programs keep in their own way.

ComfyUI's files may have a prefix before all names, or weights of float8 with a scale.
"""

import math
from collections.abc import Mapping
from functools import partial

import numpy as np

from itjax.errors import UserError
from itjax.weights.lazy import LazyTensor, changed_dtype
from itjax.weights.mapping import Index
from itjax.weights.plausible import FLOATS

PREFIXES = ("model.diffusion_model.", "diffusion_model.")

# Endings of the names of a weight's scale in place of ".weight", and of what only matters to products in float8
SCALE_ENDINGS = (".scale_weight", ".weight_scale")
WITHOUT_USE = ("scaled_fp8", ".scale_input", ".input_scale")

# Endings of names that only files of quantised integers have (quanto, GPTQ, bitsandbytes), or that say how to read others
QUANTISED_ENDINGS = ("._data", "._scale", ".qweight", ".absmax", ".comfy_quant")


def official_tensors(tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """The same tensors by official names; weights that have a scale are multiplied by it as they are read.

    Raises:
        UserError: if the file is quantised in another way.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(WITHOUT_USE)}
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in kept):
            kept = {name.removeprefix(prefix): tensor for name, tensor in kept.items()}
    for name, tensor in kept.items():
        if name.endswith(QUANTISED_ENDINGS):
            raise _quantised(name, tensor)
    scales = {name for name in kept if name.endswith(SCALE_ENDINGS)}
    plain = {name: tensor for name, tensor in kept.items() if name not in scales}
    for scale in sorted(scales):
        weight = f"{scale.rpartition('.')[0]}.weight"
        if weight not in plain or not _is_scale_of(plain[weight], kept[scale]):
            raise _quantised(scale, kept[scale])
        plain[weight] = _scaled(plain[weight], kept[scale])
    return plain


def _quantised(name: str, tensor: LazyTensor) -> UserError:
    return UserError(
        f"{tensor.file} is quantised in a way that is not supported (it has {name} {tensor.dtype}{list(tensor.shape)}): use "
        "the published Wan2.1-I2V-14B-480P and infinitetalk.safetensors, or files in bfloat16 or float16"
    )


def _is_scale_of(weight: LazyTensor, scale: LazyTensor) -> bool:
    """Whether both are of floating-point numbers, and the scale is one number or one for each row of the weight."""
    floats = {weight.dtype.name, scale.dtype.name} <= {*FLOATS}
    return floats and math.prod(scale.shape) in (1, *weight.shape[:1])


def _scaled(weight: LazyTensor, scale: LazyTensor) -> LazyTensor:
    dtype = changed_dtype(weight.dtype)
    return weight._replace(dtype=dtype, read=partial(_read_scaled, weight, scale, dtype))


def _read_scaled(weight: LazyTensor, scale: LazyTensor, dtype: np.dtype, index: Index) -> np.ndarray:
    values = weight.read(index).astype(np.float32)
    factors = scale.read(()).astype(np.float32).reshape(-1, *(1,) * (len(weight.shape) - 1))
    with np.errstate(over="ignore", invalid="ignore"):  # whoever reads the values checks them
        return (values * (factors if factors.size == 1 else factors[index[:1]])).astype(dtype)
