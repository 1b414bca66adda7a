"""Tells sets of weights apart by their content, so that a copy of them counts as the same. Reads a few MB of each file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from itjax.errors import UserError
from itjax.input_files import content_id
from itjax.weights import store
from itjax.weights.lora import LoraFile
from itjax.weights.torch_files import TensorFiles

BLOCK_BYTES = 2**16  # of each of the samples
BLOCKS = 64  # samples spread over the files of a folder


def identity_of(files: TensorFiles, loras: Sequence[LoraFile]) -> str:
    """Identity of tensors with LoRA files added, independent of the names, places and times of the files.

    Raises:
        UserError: if a file cannot be read.
    """
    paths = {tensor.file for tensor in files.tensors.values() if tensor.file}
    added = [f"{digest_of(Path(path))}*{scale}{'*alpha' * apply_alpha}" for path, scale, apply_alpha in loras]
    return ",".join([*sorted(map(digest_of, paths)), *added])


def digest_of(path: Path) -> str:
    """`content_id` of a file; of a checkpoint: the digest of its content that was stored when it was written.

    Raises:
        UserError: if something cannot be read.
    """
    try:
        if not path.is_dir():
            return content_id(path)
        return store.stored_digest(path) or _digest_of_folder(path)
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


def _digest_of_folder(folder: Path) -> str:
    """Digest of the names and sizes of all files, and of samples of some: for checkpoints without a stored digest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
    every = -(-len(files) // BLOCKS)
    for path in files[::every] if files else ():
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - BLOCK_BYTES) // 2)
            digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()
