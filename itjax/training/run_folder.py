"""The folder of a run: what it was begun with, and that no second one writes into it."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from etils import epath
from flax.traverse_util import flatten_dict

from itjax.config import to_json
from itjax.disk import atomic_path, output_errors
from itjax.errors import UserError
from itjax.training.checkpoints import folder_of
from itjax.training.config import Training
from itjax.weights.sources import Weights

VERSION = 1
FILE = "config.json"
# what a run may be continued with another of: it changes no number of the training (remat and mesh: but for rounding)
FREE = ("data", "checkpoint", "run", "steps", "remat", "mesh", "processes", "reports", "checkpoints")


def content(settings: Training, weights: Weights) -> dict[str, Any]:
    """config.json of a run."""
    elsewhere = {"checkpoints": os.fspath(folder_of(settings))} if settings.checkpoints.folder else {}
    return elsewhere | {
        "version": VERSION,
        "preset": to_json(weights.preset),
        "checkpoint": str(Path(settings.checkpoint).absolute()),
        "identity": weights.identity,
        "training": asdict(settings),
    }


def begin(settings: Training, weights: Weights) -> None:
    """Writes config.json into a new run's folder, or holds it against that of the run that is there.

    And so in a folder of checkpoints that lies elsewhere: the run's own may be on a machine that is gone.

    Raises:
        UserError: with each setting that differs; or where the config.json that is there cannot be read.
        OutputError: where the disk refuses.
    """
    now = json.loads(json.dumps(content(settings, weights)))
    _begin_in(epath.Path(settings.run), now)
    if settings.checkpoints.folder:
        _begin_in(folder_of(settings), now)


def is_one(folder: Path) -> bool:
    """Whether it was begun as a run's folder, or as one of a run's checkpoints."""
    try:
        return "training" in json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return False


def _begin_in(folder: epath.Path, now: dict[str, Any]) -> None:
    path = folder / FILE
    if not path.exists():
        with output_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            if "://" in os.fspath(path):  # an object of a bucket is there whole or not at all
                path.write_text(json.dumps(now, indent=1))
            else:
                _write(Path(path), now)
        return
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); give another folder for run, or repair it") from error
    differing = _differences(before, now)
    if differing:
        raise UserError(f"{folder} holds a run of other settings. Give the same ones, or another run folder:{differing}")


def _write(path: Path, now: dict[str, Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("w") as file:
        json.dump(now, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    flat = lambda of: flatten_dict({k: v for k, v in of.get("training", {}).items() if k not in FREE}, sep=".")
    old, new = flat(before), flat(now)
    lines = [
        f"\n  {k}: {old.get(k)} there, {new.get(k)} now" for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)
    ]
    if before.get("identity") != now["identity"]:
        lines.append(
            f"\n  checkpoint: {before.get('checkpoint')} there, {now['checkpoint']} now, and they differ in content"
        )
    return "".join(lines)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder, made if need be, held until the block or the process ends.

    Raises:
        UserError: where another run has it.
        OutputError: where it cannot be made.
    """
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process trains in {folder}: wait for it, end it, or give another folder") from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)
