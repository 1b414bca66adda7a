"""LoRA (arXiv 2106.09685): deltas added to the tensors of a checkpoint as they are read, slice by slice."""

import math
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from itjax.errors import UserError, first_ten
from itjax.weights.lazy import LazyTensor, changed_dtype
from itjax.weights.lora_names import (
    ALPHA_ENDING,
    DIFFERENCE_ENDINGS,
    PAIR_ENDINGS,
    check_kind,
    module_names,
    tensor_name,
)
from itjax.weights.mapping import Index, Shape
from itjax.weights.plausible import FLOATS, LIMIT, check_values
from itjax.weights.torch_files import TensorFiles, open_tensors


class LoraFile(NamedTuple):
    """A LoRA file, and how it is added.

    Args:
        path: the file.
        scale: factor of its deltas.
        apply_alpha: whether a pair that has an `alpha` is scaled by alpha / rank, as other tools do. The official code
            ignores it.
    """

    path: str | Path
    scale: float = 1.0
    apply_alpha: bool = False


class Lora(NamedTuple):
    """A set of deltas by their names in the file (or training run), and how they are added."""

    file: LoraFile
    tensors: TensorFiles


class Delta(NamedTuple):
    """The update of one tensor: scale · up @ down, or scale · difference (`down` is then empty).

    Of a Linear, up is [O, rank] and down [rank, I]; of a convolution, up is [O, rank, 1, 1, 1] and down [rank, I, t, h, w].
    """

    path: Path
    file: TensorFiles
    scale: float
    up: str
    down: str = ""

    def read(self, shape: tuple[int, ...], index: Index) -> np.ndarray:
        """The slice `index` of the delta of a tensor of `shape`, float32."""
        if not self.down:
            difference = self.file.read(self.up).astype(np.float32).reshape(shape)
            return np.float32(self.scale) * difference[index]
        up = self.file.read(self.up).astype(np.float32)
        down = self.file.read(self.down).astype(np.float32)[(slice(None), *index[1:])]
        return np.float32(self.scale) * np.tensordot(up.reshape(up.shape[:2])[index[:1]], down, axes=1)


def with_loras(files: TensorFiles, loras: Sequence[LoraFile]) -> TensorFiles:
    """The same tensors with the deltas of each file added, in float32, to every slice that is read.

    Tensors of float8 become bfloat16 where a delta is added.

    Warnings name the keys of a file that match no tensor, and say if an ignored alpha is not the rank.

    Raises:
        UserError: if a file is of another kind (DoRA, LoKr), matches none of the tensors or has only half of a pair, if the
            shapes of a delta and its tensor differ, or if values or a scale are not plausible. Values are checked now,
            merged ones when they are read.
    """
    return with_deltas(files, open_loras(loras))


def open_loras(loras: Sequence[LoraFile]) -> list[Lora]:
    """Opens the sets of deltas in files.

    Raises:
        UserError: if a file is not a file of tensors, or a scale is not finite.
    """
    for lora in loras:
        if not abs(lora.scale) < LIMIT:
            raise UserError(f"--lora_scale {lora.scale} of {lora.path}: must be a usual number, such as 1.0")
    return [Lora(lora, open_tensors(lora.path)) for lora in loras]


def with_deltas(files: TensorFiles, loras: Sequence[Lora]) -> TensorFiles:
    """`with_loras` for sets that are already open."""
    deltas: dict[str, list[Delta]] = {}
    for lora in loras:
        for name, delta in _deltas(lora, files):
            deltas.setdefault(name, []).append(delta)
    patched = dict(files.tensors)
    for name, added in deltas.items():
        stored = patched[name]
        dtype = changed_dtype(stored.dtype)
        patched[name] = stored._replace(dtype=dtype, read=partial(_read_with, name, stored, dtype, tuple(added)))
    return TensorFiles(patched)


def _read_with(name: str, stored: LazyTensor, dtype: np.dtype, deltas: tuple[Delta, ...], index: Index) -> np.ndarray:
    values = stored.read(index).astype(np.float32)
    check_values(values, name, stored.file)
    with np.errstate(over="ignore", invalid="ignore"):  # `check_values` finds it
        for delta in deltas:
            values = values + delta.read(stored.shape, index)
        values = values.astype(dtype)
    check_values(values, f"{name} with the LoRA {' and '.join(str(delta.path) for delta in deltas)}", None)
    return values


def _deltas(opened: Lora, files: TensorFiles) -> list[tuple[str, Delta]]:
    """(tensor name, delta) of one LoRA; a tensor may have a pair and a difference."""
    path, lora = Path(opened.file.path), opened.tensors
    known = set(files.names())
    modules = module_names(known)
    check_kind(path, lora.names())
    found: list[tuple[str, Delta]] = []
    unmatched = []
    ignored_ratios = []
    for key in lora.names():
        if _is_read_with_up(path, lora, key):
            continue
        delta, ending, ratio = _delta(opened, key)
        name = tensor_name(key, ending, modules, known) if delta else None
        if delta is None or name is None:
            unmatched.append(key)
            continue
        _check_shape(path, key, delta, name, files)
        for part in filter(None, (delta.up, delta.down)):
            _check_part(path, lora, part)
        if ratio != 1.0 and not opened.file.apply_alpha:
            ignored_ratios.append(ratio)
        found.append((name, delta))
    if not found:
        raise UserError(f"the LoRA {path} matches no tensor of this network; its keys are {first_ten(lora.names())}")
    if unmatched:
        ignored = f"{len(unmatched)} key(s) match no tensor and are ignored"
        warnings.warn(f"the LoRA {path}: {ignored}: {first_ten(unmatched)}", stacklevel=3)
    if ignored_ratios:
        which = f"alpha / rank is not 1 in {len(ignored_ratios)} pair(s) (the first: {ignored_ratios[0]:g}) and is ignored"
        choice = "as the official code does; --lora_alpha apply scales by it, as other tools do"
        warnings.warn(f"the LoRA {path}: {which}, {choice}", stacklevel=3)
    return found


def _is_read_with_up(path: Path, lora: TensorFiles, key: str) -> bool:
    """Whether the key (down or alpha) is read together with its `up`. Raises UserError if the `up` is missing."""
    for down, up in PAIR_ENDINGS:
        if key.endswith(down) and key.removesuffix(down) + up not in lora.names():
            raise UserError(f"the LoRA {path} has {key} but not {key.removesuffix(down) + up}")
    return key.endswith((*(down for down, _ in PAIR_ENDINGS), ALPHA_ENDING))


def _delta(opened: Lora, key: str) -> tuple[Delta | None, str, float]:
    """The delta of a key (None: it has none), the ending of the key, and alpha / rank (1 without an alpha)."""
    path, lora, scale = Path(opened.file.path), opened.tensors, opened.file.scale
    for down, up in PAIR_ENDINGS:
        if key.endswith(up):
            stem = key.removesuffix(up)
            if stem + down not in lora.names():
                raise UserError(f"the LoRA {path} has {key} but not {stem + down}")
            alpha = stem + ALPHA_ENDING
            ratio = _alpha(path, lora, alpha) / _rank(path, lora, stem + down) if alpha in lora.names() else 1.0
            scale = scale * ratio if opened.file.apply_alpha else scale
            return Delta(path, lora, scale, key, stem + down), up, ratio
    for ending in DIFFERENCE_ENDINGS:
        if key.endswith(ending):
            return Delta(path, lora, scale, key), ending, 1.0
    return None, "", 1.0


def _alpha(path: Path, lora: TensorFiles, key: str) -> float:
    """The number α, by which (over the rank) a pair is scaled."""
    shape = lora.shape(key)
    if math.prod(shape) != 1 or lora.dtype(key).kind == "b":
        raise UserError(f"the LoRA {path}: {key} must be one number, but is {lora.dtype(key)}{list(shape)}")
    alpha = float(lora.read(key).reshape(()))
    if not abs(alpha) < LIMIT:
        raise UserError(f"the LoRA {path}: {key} is {alpha}: replace the damaged file")
    return alpha


def _rank(path: Path, lora: TensorFiles, down: str) -> int:
    """The rank of a pair: the rows of `down`."""
    rank = lora.shape(down)[0] if lora.shape(down) else 0
    if rank == 0:
        raise UserError(f"the LoRA {path}: {down} has the shape {list(lora.shape(down))}, without a rank")
    return rank


def _check_shape(path: Path, key: str, delta: Delta, name: str, files: TensorFiles) -> None:
    shape = lora_shape = files.shape(name)
    if delta.down:
        lora_shape = _product_shape(delta.file.shape(delta.up), delta.file.shape(delta.down))
    elif math.prod(delta.file.shape(key)) != math.prod(shape):
        lora_shape = delta.file.shape(key)
    if lora_shape != shape:
        raise UserError(f"the LoRA {path}: {key} gives the shape {list(lora_shape)}, but {name} has {list(shape)}")


def _product_shape(up: Shape, down: Shape) -> Shape:
    """The shape of up @ down; that of both, one after the other, if they are no pair."""
    is_pair = len(up) >= 2 <= len(down) and up[1] == down[0] > 0 and math.prod(up[2:]) == 1
    return (up[0], *down[1:]) if is_pair else (*up, *down)


def _check_part(path: Path, lora: TensorFiles, key: str) -> None:
    """Checks the type and values of one tensor of a delta. Reads it, so that a damaged file is refused before any work."""
    if lora.dtype(key).name not in FLOATS:
        raise UserError(f"the LoRA {path}: {key} is of type {lora.dtype(key)}, but must be of floating-point numbers")
    check_values(lora.read(key), key, path)
