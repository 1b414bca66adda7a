"""Opens the arrays of an Orbax checkpoint with tensorstore, from Orbax's metadata."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import tensorstore as ts

from itjax.errors import UserError, first_ten
from itjax.input_files import read_json

METADATA_BYTES = 256_000_000  # of sizes.json and Orbax's metadata
RECOVERY_HINT = "convert the weights again, or, for a training run, use an earlier step"


def open_arrays(directory: Path, paths: tuple[str, ...] | None) -> dict[str, ts.TensorStore]:
    """Opens the arrays at `paths` (None: all) concurrently.

    Raises:
        UserError: if the folder is not a checkpoint or is damaged, or arrays are missing; the message names them.
    """
    metadata, names = _orbax_metadata(directory.absolute())
    missing = sorted(set(paths or ()) - set(names))
    if missing:
        raise UserError(f"{directory} lacks {len(missing)} arrays: {first_ten(missing)}")
    specs = {path: _spec(directory.absolute(), metadata, names[path]) for path in paths or names}
    opened, stores = {path: ts.open(spec, open=True) for path, spec in specs.items()}, {}
    for path, future in opened.items():
        try:
            stores[path] = future.result()
        except ValueError as error:
            raise damaged(directory, path, error) from error
    return stores


def read_checkpoint_json(file: Path) -> Any:
    """The content of a JSON file of a checkpoint.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return read_json(file, METADATA_BYTES)
    except UserError as error:
        raise UserError(f"{error} The checkpoint is damaged: {RECOVERY_HINT}.") from error


def _orbax_metadata(directory: Path) -> tuple[dict, dict[str, str]]:
    """Orbax's metadata of the checkpoint, and {path: Orbax's name of the leaf}."""
    file = directory / "_METADATA"
    if not file.is_file():
        state = "has no _METADATA" if directory.is_dir() else "is not a folder"
        raise UserError(f"{directory} is not a checkpoint: it {state}")
    written = file.stat()
    return _parsed_metadata(file, written.st_mtime_ns, written.st_size)


@lru_cache(maxsize=2)  # the networks of a checkpoint are read one after another
def _parsed_metadata(file: Path, *written: int) -> tuple[dict, dict[str, str]]:
    """Like `_orbax_metadata`. `written`: tells another file of the same name apart."""
    metadata = read_checkpoint_json(file)
    try:
        # empty nodes of a tree are listed, too, but have no array
        arrays = [leaf for leaf in metadata["tree_metadata"].values() if leaf["value_metadata"]["value_type"] != "None"]
        keys = [[str(key["key"]) for key in leaf["key_metadata"]] for leaf in arrays]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error!r}): {RECOVERY_HINT}") from error
    return metadata, {"/".join(leaf): ".".join(leaf) for leaf in keys}


def _spec(directory: Path, metadata: dict, name: str) -> dict:
    """The tensorstore spec of a leaf.

    A leaf is stored in its own folder (by `save`), or in the OCDBT database that is Orbax's default (by training).
    """
    folder = {"driver": "file", "path": f"{directory}/"}
    kvstore = {"driver": "ocdbt", "base": folder, "path": f"{name}/"} if metadata.get("use_ocdbt") else None
    return {
        "driver": "zarr3" if metadata.get("use_zarr3") else "zarr",
        "kvstore": kvstore or folder | {"path": f"{directory / name}/"},
        "fill_missing_data_reads": False,  # a missing file is an error instead of zeros
    }


def damaged(directory: Path, path: str, error: ValueError) -> UserError:
    """The error for an array that tensorstore cannot open or read."""
    detail = str(error).split(" [")[0]
    return UserError(f"{directory} is damaged: {path} cannot be read ({detail}): {RECOVERY_HINT}")
