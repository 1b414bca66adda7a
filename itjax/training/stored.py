"""Finds the checkpoint of a network in the folder that its training, or convert_weights.py, has left."""

from pathlib import Path
from typing import Any

from itjax.errors import UserError
from itjax.weights import store

PLACES = ("", "export/checkpoint", "result/weights", "checkpoint", "weights")  # of a checkpoint in a run's folder


def checkpoint_in(folder: Path, network: str) -> Path:
    """The checkpoint with `network` in the folder of a run.

    Raises:
        UserError: If there is none.
    """
    for place in PLACES:
        found = Path(folder) / place
        if (found / store.SIZES_FILE).is_file() and network in sizes_in(found):
            return found
    raise UserError(f"{folder}: no checkpoint of the network {network} is in this folder; give the folder of a finished run")


def sizes_in(checkpoint: Path) -> dict[str, Any]:
    """{network: sizes} of the networks in a checkpoint, which may have those of some networks only."""
    metadata = store.read_metadata(checkpoint)
    sizes = metadata.get("networks", metadata)
    branches = {path.split("/")[0] for path in store.open_checkpoint(checkpoint).names()}
    return {name: value for name, value in sizes.items() if name in branches}
