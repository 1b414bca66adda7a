"""Reads torch's tensor files slice by slice. Independent of the networks and of JAX.

No file can run code: a safetensors file is a header and bytes, and pickles go through torch's weights-only loader.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from itjax.errors import UserError, first_ten
from itjax.input_files import check_file, read_json
from itjax.weights.lazy import LazyTensor
from itjax.weights.mapping import Index, Shape
from itjax.weights.pickle_files import TORCH_ENDINGS, open_pickle
from itjax.weights.plausible import FLOATS
from itjax.weights.safetensors_files import open_safetensors

INDEX_BYTES = 64_000_000  # of an index of shards; the official one has 0.1 MB


class TensorFiles:
    """Tensors by name, from one or several files: shapes and dtypes are known, values are read on demand."""

    def __init__(self, tensors: dict[str, LazyTensor]):
        self.tensors = tensors

    def names(self) -> tuple[str, ...]:
        """Names of all tensors."""
        return tuple(self.tensors)

    def shapes(self) -> dict[str, Shape]:
        """{name: shape} of all tensors."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def shape(self, name: str) -> Shape:
        """Shape of the tensor `name`."""
        return self.tensors[name].shape

    def dtype(self, name: str) -> np.dtype:
        """Dtype of the tensor `name`."""
        return self.tensors[name].dtype

    def read(self, name: str, index: Index = ()) -> np.ndarray:
        """Reads the slice `index` of the tensor (slices of the leading axes; by default the whole tensor).

        Only the rows in `index[0]` are read from the file.

        Raises:
            KeyError: if the name is unknown.
            UserError: if the file has changed.
        """
        return self.tensors[name].read(index)


def open_tensors(paths: str | Path | Sequence[str | Path], key: str | None = None) -> TensorFiles:
    """Opens safetensors files (a file, an index of shards, or a folder with either) or torch pickles.

    `key` is the entry of a torch pickle that contains the tensors ("state_dict", "model"), if not all of its entries are.
    The headers are used to check that the files are complete; values are read later.

    Raises:
        UserError: if shards of an index are missing, incomplete or lack tensors listed for them (the message names all
            such shards), if a file is damaged, would run code or repeats a tensor, or if it is ambiguous which file of a
            folder to read.
    """
    found: dict[str, LazyTensor] = {}
    for path in [paths] if isinstance(paths, str | Path) else paths:
        file = _the_file(Path(path))
        tensors = _open_index(file, key) if file.name.endswith(".index.json") else _open_file(file, key)
        for name in tensors.keys() & found.keys():
            raise UserError(f"{name} is both in {found[name].file} and in {tensors[name].file}: omit one of the files")
        found |= tensors
    return TensorFiles(found)


def _the_file(path: Path) -> Path:
    """`path` itself or, if it is a folder, its only index, else its only .safetensors file, else pytorch_model.bin."""
    if not os.path.isdir(path):
        check_file(path, "a file of tensors")
        return path
    for pattern in ("*.safetensors.index.json", "*.safetensors", "pytorch_model.bin"):
        files = sorted(path.glob(pattern))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise UserError(f"{path} contains several tensor files ({names}): specify the one to read")
        if files:
            return files[0]
    raise UserError(f"{path} contains neither .safetensors files nor an index of them")


def _open_index(index: Path, key: str | None) -> dict[str, LazyTensor]:
    """The tensors of all shards in the index. All shards are checked before an error is raised."""
    content = read_json(index, INDEX_BYTES)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise UserError(
            f'{index} is not an index of shards: "weight_map" must give the file of each tensor; download it again'
        )
    found: dict[str, LazyTensor] = {}
    shards = sorted(set(weight_map.values()))
    missing = [shard for shard in shards if not os.path.isfile(index.parent / shard)]
    problems = [f"missing: {shard}" for shard in missing]
    for shard in sorted(set(shards) - set(missing)):
        try:
            tensors = _open_file(index.parent / shard, key)
        except UserError as error:
            problems.append(str(error))
            continue
        absent = [name for name, listed in weight_map.items() if listed == shard and name not in tensors]
        if absent:
            problems.append(f"{shard} lacks {len(absent)} tensors that the index lists for it: {first_ten(absent)}")
        found |= tensors
    if problems:
        details = "\n  ".join(problems)
        raise UserError(f"{index} lists {len(shards)} shards, not all of them usable (download again):\n  {details}")
    return found


def _open_file(path: Path, key: str | None) -> dict[str, LazyTensor]:
    check_file(path, "a file of tensors")
    if path.suffix == ".safetensors":
        return open_safetensors(path)
    if path.suffix in TORCH_ENDINGS:
        return open_pickle(path, key)
    if path.suffix == ".gguf":
        raise UserError(f"{path} is quantised (GGUF), which is not supported: use .safetensors files in BF16 or F16")
    raise UserError(f"{path}: the file name must end in .safetensors or one of {', '.join(TORCH_ENDINGS)}")


def check_names(
    expected: dict[str, Shape],
    found: TensorFiles,
    where: str,
    allowed_extra: Callable[[str], bool] = lambda name: False,
) -> None:
    """Checks that `found` contains the `expected` tensors with their shapes, and no others than `allowed_extra` accepts.

    The `expected` tensors must be of floating-point numbers.

    Raises:
        UserError: if tensors are missing, unexpected or have a wrong shape or type; the message lists the first ten of each.
    """
    names = set(found.names())
    missing = [f"{name} {list(shape)}" for name, shape in expected.items() if name not in names]
    unexpected = [f"{n} {list(found.shape(n))}" for n in found.names() if n not in expected and not allowed_extra(n)]
    mismatched = [
        f"{name}: expected {list(shape)}, found {list(found.shape(name))}"
        for name, shape in expected.items()
        if name in names and tuple(shape) != found.shape(name)
    ]
    integers = [f"{n} {found.dtype(n)}" for n in expected if n in names and found.dtype(n).name not in FLOATS]
    groups = (
        *(("missing", missing), ("unexpected", unexpected)),
        *(("with a wrong shape", mismatched), ("not of floating-point numbers", integers)),
    )
    details = [f"  {len(items)} {title}: {first_ten(items, '; ')}" for title, items in groups if items]
    if details:
        raise UserError(f"{where} does not contain the expected {len(expected)} tensors:\n" + "\n".join(details))
