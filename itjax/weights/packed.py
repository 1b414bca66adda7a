"""Writes a small checkpoint in few files, to be kept in a repository. It is read like any other (`itjax.weights.store`).

`store.save` writes two files for each array, which suits arrays of gigabytes; here Orbax's database (OCDBT) holds all
arrays in about twenty files, compressed. Everything is in memory at once.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from itjax.disk import atomic_path, check_absent, check_output
from itjax.errors import UserError
from itjax.weights import checksums, store


def save_packed(directory: Path, tree: dict, metadata: dict, companions: Mapping[str, Path], cards: Sequence[Path]) -> None:
    """Writes a checkpoint.

    Args:
        directory: Folder to create; its parent must exist.
        tree: Nested dict of numpy arrays.
        metadata: JSON that describes the networks, for `store.read_metadata`.
        companions: {name: file} of additional files, for `store.companion_files`.
        cards: Files that describe the model, to copy into the folder. They have no checksum, so that they can be edited.

    Raises:
        UserError: If `directory` exists, its parent does not, or a card has the name of another file of the checkpoint.
        OutputError: If the disk is full.
    """
    target = Path(directory).absolute()
    check_absent(target)
    check_output(target, sum(array.nbytes for array in jax.tree.leaves(tree)))
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for path, array in sorted(flatten_dict(tree, sep="/").items()):
        digest.update(f"{path} {array.dtype.name} {list(array.shape)} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=True)
    with atomic_path(target) as folder, store.write_errors(target):
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(folder, tree)
        (folder / "commit_success.txt").unlink(missing_ok=True)  # names the temporary folder, and is only read in buckets
        for name, file in sorted(companions.items()):
            copy = store.companion_files(folder) / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
            digest.update(name.encode() + copy.read_bytes())
        store.write_sizes(folder, metadata, digest.hexdigest())
        checksums.write(folder, set())
        for card in cards:
            if (folder / card.name).exists():
                raise UserError(f"--card {card}: the checkpoint has its own {card.name}: give the card another name")
            (folder / card.name).write_bytes(card.read_bytes())
