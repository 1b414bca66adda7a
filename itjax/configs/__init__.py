"""Presets: network sizes and video sizes as Python values, one file each."""

import json
import os
import runpy
from pathlib import Path

from itjax.configs import infinitetalk_14b, small, tiny
from itjax.config import Preset, to_json
from itjax.errors import UserError
from itjax.input_files import read_json
from itjax.preset_json import preset_from_json

PRESETS = {module.PRESET.name: module.PRESET for module in (infinitetalk_14b, small, tiny)}
COMPARED = ("dim", "ffn_dim", "freq_dim", "in_dim", "num_heads", "num_layers", "out_dim", "text_len")


def named(name: str) -> Preset:
    """The preset with this name, or the PRESET of this Python file, which is run. Only for names given by the user.

    Raises:
        UserError: if there is none, or the file cannot be run.
    """
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"--preset {name}: neither a Python file nor one of {', '.join(PRESETS)}")
    try:
        preset = runpy.run_path(str(path)).get("PRESET")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # it is the user's code, which may raise anything, or exit
        raise UserError(f"--preset {name}: running this file failed: {_one_line(error)}") from error
    if not isinstance(preset, Preset):
        raise UserError(f"--preset {name}: the file defines no PRESET of type itjax.config.Preset")
    try:
        preset_from_json(json.loads(json.dumps(to_json(preset))))
    except (TypeError, ValueError) as error:
        raise UserError(f"--preset {name}: {error}") from error
    return preset


def _one_line(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # an error of the user's code may fail to describe itself
        text = "(without a description)"
    return " ".join(f"{type(error).__name__}: {text}".split())


def matching(ckpt_dir: Path) -> Preset:
    """The preset whose DiT matches config.json in the Wan folder. Raises UserError if there is none."""
    file = Path(ckpt_dir) / "config.json"
    if not os.path.exists(file):
        raise UserError(
            f"--ckpt_dir {ckpt_dir}: no config.json in this folder. Correct the path, or specify the sizes with --preset."
        )
    sizes = read_json(file)
    if not isinstance(sizes, dict) or not sizes.keys() & set(COMPARED):
        raise UserError(f"{file}: these are not the sizes of Wan's network. Download it again, or specify --preset.")
    for preset in PRESETS.values():
        if all(getattr(preset.networks.dit, key) == sizes[key] for key in COMPARED if key in sizes):
            return preset
    config_sizes = {key: sizes[key] for key in COMPARED if key in sizes}
    raise UserError(
        f"{file}: no preset has these sizes: {config_sizes}. Write one (see configs/tiny.py) and pass it with --preset FILE"
    )
