"""The folder of a run: its initial settings, and a lock against a second process."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from etils import epath
from flax.traverse_util import flatten_dict

from itjax.config import to_json
from itjax.disk import lock_folder, output_errors, write_text
from itjax.errors import UserError
from itjax.input_files import parse_json, read_json
from itjax.training.checkpoints import folder_of, last_step
from itjax.training.config import Training
from itjax.weights.sources import Weights

VERSION = 1
FILE = "config.json"
# settings that may change when a run resumes: they do not affect the training (remat and mesh: except for rounding)
CHANGEABLE = ("data", "checkpoint", "run", "steps", "remat", "mesh", "processes", "reports", "checkpoints")
ADDED = {"optimizer.name": "adamw"}  # settings that older runs do not have, and what they did


def config_content(settings: Training, weights: Weights) -> dict[str, Any]:
    """The content of a run's config.json."""
    return _checkpoint_folder(settings) | {
        "version": VERSION,
        "preset": to_json(weights.preset),
        "checkpoint": str(Path(settings.checkpoint).absolute()),
        "identity": weights.identity,
        "training": asdict(settings),
    }


def _checkpoint_folder(settings: Training) -> dict[str, str]:
    """The part of config.json that tells where the checkpoints are, if not in the run's folder, which may be moved."""
    return {"checkpoints": os.fspath(folder_of(settings))} if settings.checkpoints.folder else {}


def as_stored(content: dict[str, Any]) -> dict[str, Any]:
    """The content as it is read from JSON again: tuples are lists."""
    return json.loads(json.dumps(content))


def create_or_check(settings: Training, weights: Weights) -> None:
    """Writes config.json into a new run's folder, or compares it with that of the existing run.

    The same applies to a separate checkpoint folder, because the machine with the run's own folder may be lost.

    Raises:
        UserError: If settings differ (lists each), the existing config.json cannot be read, or the run has its checkpoints
            in another folder.
        OutputError: If the file cannot be written.
    """
    current = as_stored(config_content(settings, weights))
    write_or_compare(epath.Path(settings.run), current, "--run")
    _check_checkpoint_folder(settings)
    if settings.checkpoints.folder:
        write_or_compare(folder_of(settings), current, "--run")


def _check_checkpoint_folder(settings: Training) -> None:
    """Refuses another folder than the run's checkpoints are in: the run would start over, and overwrite its reports.

    Checkpoints may have been moved: a folder that holds some is accepted, and config.json tells of it from then on.
    """
    path, chosen = Path(settings.run) / FILE, folder_of(settings)
    stored = read_json(path)
    before = folder_of(replace(settings, checkpoints=replace(settings.checkpoints, folder=stored.pop("checkpoints", ""))))
    if os.fspath(before) == os.fspath(chosen):
        return
    if last_step(chosen) is None:
        raise UserError(
            f"the checkpoints of {settings.run} are in {before}, but {chosen} holds none, and training would start over: "
            "move the checkpoints, or give the same --checkpoints.folder"
        )
    _write(epath.Path(path), stored | _checkpoint_folder(settings))


def is_run_folder(folder: Path) -> bool:
    """Whether `folder` is the folder of a run or of a run's checkpoints."""
    try:
        content = read_json(folder / FILE)
    except UserError:
        return False
    return isinstance(content, dict) and "training" in content


def write_or_compare(folder: epath.Path, current: dict[str, Any], flag: str) -> None:
    """Writes config.json with `current`, its "training" and "identity", or compares these with those that are there.

    `flag`: the one that names the folder, for messages.

    Raises:
        UserError: If they differ (lists each), or the existing config.json cannot be read.
        OutputError: If the file cannot be written.
    """
    path = folder / FILE
    if not path.exists():
        _write(path, current)
        return
    try:
        stored = parse_json(path.read_bytes(), path) if "://" in os.fspath(path) else read_json(path)
    except (OSError, UserError) as error:
        raise UserError(f"{path} cannot be read ({error}); repair it, or choose another {flag} folder") from error
    if not isinstance(stored, dict) or not isinstance(stored.get("training", {}), dict):
        raise UserError(f"{path} is not the configuration of a run; repair it, or choose another {flag} folder")
    differences = _differences(stored, current)
    if differences:
        raise UserError(
            f"{folder} holds a run with other settings. Use the same settings, or another {flag} folder:{differences}"
        )


def _write(path: epath.Path, content: dict[str, Any]) -> None:
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if "://" in os.fspath(path):  # an object in a bucket is written atomically
            path.write_text(json.dumps(content, indent=1))
        else:
            write_text(Path(path), json.dumps(content, indent=1))


def _differences(stored: dict[str, Any], current: dict[str, Any]) -> str:
    flat = lambda settings: flatten_dict(
        {k: v for k, v in settings.get("training", {}).items() if k not in CHANGEABLE}, sep="."
    )
    old, new = flat(stored), flat(current)
    old = {name: value for name, value in ADDED.items() if name in new} | old
    lines = [
        f"\n  {k}: was {old.get(k)}, now {new.get(k)}" for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)
    ]
    if stored.get("identity") != current["identity"]:
        lines.append(
            f"\n  checkpoint: was {stored.get('checkpoint')}, now {current.get('checkpoint')}, with different content"
        )
    return "".join(lines)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Creates the folder if it does not exist, and locks it until the block or the process ends.

    Raises:
        UserError: If another process has the lock.
        OutputError: If the folder cannot be created.
    """
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        refusal = f"another process is training in {folder}: wait for it, end it, or choose another folder"
        handle = lock_folder(folder, refusal)
    try:
        yield
    finally:
        os.close(handle)
