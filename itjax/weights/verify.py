"""Compares weights with their checksums: those of a converted checkpoint, those in .pth files, and published ones.

Published checksums are those that Hugging Face's download tool keeps next to the files; none are listed here.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from itjax.errors import UserError
from itjax.progress import SILENT, Progress
from itjax.weights import checksums, store
from itjax.weights.lazy import LazyTensor
from itjax.weights.torch_files import TensorFiles, open_tensors

ROWS_BYTES = 2**27  # bytes of an array read at a time
SHA256 = re.compile(r"[0-9a-f]{64}")


def verify_checkpoint(directory: Path, progress: Progress = SILENT) -> None:
    """Reads all files of a converted checkpoint and compares them with their checksums.

    Raises:
        UserError: if a file is missing or differs from what was written.
    """
    if not checksums.check(directory):
        progress.notice(f"{directory} was written before small files had checksums: only its arrays can be verified")
    store.read_metadata(directory)
    verify_arrays(store.open_checkpoint(directory).tensors, progress)
    progress.notice(f"{directory} is intact")


def verify_arrays(arrays: Mapping[str, LazyTensor], progress: Progress = SILENT) -> None:
    """Reads all arrays of a checkpoint, whose chunks are thereby compared with their checksums.

    Raises:
        UserError: if a chunk is missing or differs from what was written.
    """
    with progress.bar(sum(array.nbytes for array in arrays.values()), "B") as bar:
        for array in arrays.values():
            length = array.shape[0] if array.shape else 1
            rows = max(1, ROWS_BYTES * length // max(1, array.nbytes))
            for start in range(0, length, rows):
                array.read((slice(start, start + rows),) if array.shape else ())
            bar.advance(array.nbytes)


def verify_official(files: Iterable[TensorFiles], loras: Iterable[Path], progress: Progress = SILENT) -> None:
    """Compares official files, and LoRA files, with their published checksums or those in them. Notes those without any.

    Raises:
        UserError: if a file differs.
    """
    everything = [*files, *map(open_tensors, loras)]
    tensors = [tensor for opened in everything for tensor in opened.tensors.values()]
    for file in sorted({tensor.file for tensor in tensors if tensor.file}):
        progress.notice(f"{file}: {_verify_file(file, [tensor for tensor in tensors if tensor.file == file])}")


def _verify_file(file: Path, tensors: list[LazyTensor]) -> str:
    published = published_sha256(file)
    if published is not None:
        if checksums.sha256(file) != published:
            raise UserError(f"{file} is not the published file: its SHA-256 should be {published}. Download it again.")
        return "matches its published SHA-256"
    if file.suffix == ".safetensors":
        return "no checksum is known (Hugging Face's download tool keeps them)"
    for tensor in tensors:
        tensor.read((slice(0, 0),) if tensor.shape else ())  # no values, but the checksum of all of them
    return "matches the checksums in it, if there are any"


def published_sha256(file: Path) -> str | None:
    """The SHA-256 that Hugging Face gave for this file when its tool downloaded it, to a folder or to its cache."""
    stored = file.resolve()
    if stored.parent.name == "blobs" and SHA256.fullmatch(stored.name):
        return stored.name
    for folder in file.absolute().parents:
        record = folder / ".cache" / "huggingface" / "download" / f"{file.absolute().relative_to(folder)}.metadata"
        if record.is_file():
            lines = record.read_text(errors="replace").split()
            return lines[1] if len(lines) > 1 and SHA256.fullmatch(lines[1]) else None  # small files have a git hash
    return None
