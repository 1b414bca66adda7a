"""LoRA (arXiv 2106.09685): deltas added to the tensors of a checkpoint as they are read, slice by slice."""

import math
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from itjax.errors import UserError
from itjax.weights.lazy import LazyTensor
from itjax.weights.mapping import Index
from itjax.weights.torch_files import TensorFiles, open_tensors

PREFIXES = ("diffusion_model.", "model.diffusion_model.", "transformer.", "")
# ending of a key -> ending of the tensor to which its difference is added
DIFFERENCE_SUFFIXES = {".diff": ".weight", ".diff_b": ".bias", ".diff_m": ".modulation"}
LOW_RANK_SUFFIXES = ((".lora_down.weight", ".lora_up.weight"), (".lora_A.weight", ".lora_B.weight"))


class Lora(NamedTuple):
    """A set of deltas, by their names in `path`, and the scale with which they are added."""

    path: Path
    tensors: TensorFiles
    scale: float


class Delta(NamedTuple):
    """The update of one tensor: scale · up @ down, or scale · difference (`down` is then empty)."""

    file: TensorFiles
    scale: float
    up: str
    down: str = ""

    def read(self, shape: tuple[int, ...], index: Index) -> np.ndarray:
        """The slice `index` of the delta of a tensor of `shape`, float32."""
        if not self.down:
            difference = self.file.read(self.up).astype(np.float32).reshape(shape)
            return np.float32(self.scale) * difference[index]
        rows, columns = (*index, slice(None), slice(None))[:2]
        up = self.file.read(self.up).astype(np.float32)[rows]
        down = self.file.read(self.down).astype(np.float32)[:, columns]
        return np.float32(self.scale) * (up @ down)


def with_loras(files: TensorFiles, loras: Sequence[tuple[str | Path, float]]) -> TensorFiles:
    """The same tensors with the deltas of each (file, scale) added, in float32, to every slice that is read.

    If only some keys of a file match a tensor, a warning names the others.

    Raises:
        UserError: if a file matches none of the tensors or has only half of a pair, or if the shapes of a delta and its
            tensor differ.
    """
    return with_deltas(files, open_loras(loras))


def open_loras(loras: Sequence[tuple[str | Path, float]]) -> list[Lora]:
    """Opens the sets of deltas in files, each with its scale.

    Raises:
        UserError: if a file is not a file of tensors.
    """
    return [Lora(Path(path), open_tensors(path), scale) for path, scale in loras]


def with_deltas(files: TensorFiles, loras: Sequence[Lora]) -> TensorFiles:
    """`with_loras` for sets that are already open."""
    deltas: dict[str, list[Delta]] = {}
    for lora in loras:
        for name, delta in _deltas(lora, files):
            deltas.setdefault(name, []).append(delta)
    patched = dict(files.tensors)
    for name, added in deltas.items():
        stored = patched[name]
        patched[name] = stored._replace(read=partial(_read_with, stored, tuple(added)))
    return TensorFiles(patched)


def _read_with(stored: LazyTensor, deltas: tuple[Delta, ...], index: Index) -> np.ndarray:
    value = stored.read(index).astype(np.float32)
    for delta in deltas:
        value = value + delta.read(stored.shape, index)
    return value.astype(stored.dtype)


def _deltas(opened: Lora, files: TensorFiles) -> list[tuple[str, Delta]]:
    """(tensor name, delta) of one LoRA; a tensor may have a pair and a difference."""
    path, lora, scale = opened
    known = set(files.names())
    found: list[tuple[str, Delta]] = []
    unmatched = []
    for key in lora.names():
        if _is_read_with_up(path, lora, key):
            continue
        delta, ending = _delta(path, lora, key, scale)
        name = _tensor_name(key, ending, known) if delta else None
        if delta is None or name is None:
            unmatched.append(key)
            continue
        _check_shape(path, key, delta, name, files)
        found.append((name, delta))
    if not found:
        raise UserError(f"the LoRA {path} matches no tensor of this network; its keys are {_some(lora.names())}")
    if unmatched:
        ignored = f"{len(unmatched)} key(s) match no tensor and are ignored"
        warnings.warn(f"the LoRA {path}: {ignored}: {_some(unmatched)}", stacklevel=3)
    return found


def _is_read_with_up(path: Path, lora: TensorFiles, key: str) -> bool:
    """Whether the key (down or alpha) is read together with its `up`. Raises UserError if the `up` is missing."""
    for down, up in LOW_RANK_SUFFIXES:
        if key.endswith(down) and key.removesuffix(down) + up not in lora.names():
            raise UserError(f"the LoRA {path} has {key} but not {key.removesuffix(down) + up}")
    return key.endswith((*(down for down, _ in LOW_RANK_SUFFIXES), ".alpha"))


def _delta(path: Path, lora: TensorFiles, key: str, scale: float) -> tuple[Delta | None, str]:
    for down, up in LOW_RANK_SUFFIXES:
        if key.endswith(up):
            stem = key.removesuffix(up)
            if stem + down not in lora.names():
                raise UserError(f"the LoRA {path} has {key} but not {stem + down}")
            if f"{stem}.alpha" in lora.names():
                scale = scale * lora.read(f"{stem}.alpha").item() / lora.shape(stem + down)[0]
            return Delta(lora, scale, key, stem + down), up
    for ending in DIFFERENCE_SUFFIXES:
        if key.endswith(ending):
            return Delta(lora, scale, key), ending
    return None, ""


def _tensor_name(key: str, ending: str, known: set[str]) -> str | None:
    stem = key.removesuffix(ending)
    for prefix in PREFIXES:
        name = stem.removeprefix(prefix) + DIFFERENCE_SUFFIXES.get(ending, ".weight")
        if name in known:
            return name
    return None


def _check_shape(path: Path, key: str, delta: Delta, name: str, files: TensorFiles) -> None:
    shape = lora_shape = files.shape(name)
    if delta.down:
        up, down = delta.file.shape(delta.up), delta.file.shape(delta.down)
        lora_shape = (up[0], down[1]) if len(up) == len(down) == 2 and up[1] == down[0] else (*up, *down)
    elif math.prod(delta.file.shape(key)) != math.prod(shape):
        lora_shape = delta.file.shape(key)
    if lora_shape != shape:
        raise UserError(f"the LoRA {path}: {key} gives the shape {list(lora_shape)}, but {name} has {list(shape)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
