"""Weights are the same after a copy, and others if a tensor differs."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from itjax.weights.identity import digest_of, identity_of
from itjax.weights.lazy import LazyTensor
from itjax.weights.lora import LoraFile
from itjax.weights.official import open_official
from itjax.weights.store import open_checkpoint, read_metadata, save
from itjax.weights.torch_files import TensorFiles


def checkpoint(folder: Path, value: float = 1.0, name: str = "w") -> Path:
    values = np.full((50, 40), value, np.float32)
    leaf = LazyTensor(values.shape, values.dtype, lambda _: values)
    save(folder, {"dit": {name: leaf, "v": leaf._replace(read=lambda _: np.ones_like(values))}}, {"layers": 3})
    return folder


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    for path in [target, *target.rglob("*")]:
        os.utime(path, (1, 1))
    return target


def test_a_copied_checkpoint_is_the_same(tmp_path):
    original = checkpoint(tmp_path / "original")
    moved = copy(original, tmp_path / "elsewhere")
    assert identity_of(open_checkpoint(original), []) == identity_of(open_checkpoint(moved), [])
    assert digest_of(checkpoint(tmp_path / "again")) == digest_of(original)  # converted once more
    assert read_metadata(original) == {"layers": 3}


@pytest.mark.parametrize("changes", [{"value": 1.5}, {"name": "u"}])
def test_another_tensor_makes_another_checkpoint(changes, tmp_path):
    assert digest_of(checkpoint(tmp_path / "a")) != digest_of(checkpoint(tmp_path / "b", **changes))


def test_older_checkpoints_have_no_stored_digest(tmp_path):
    folders = [checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b", value=1.5)]
    for folder in folders:
        content = json.loads((folder / "sizes.json").read_text())
        del content["digest"]
        (folder / "sizes.json").write_text(json.dumps(content))
        (folder / "checksums.json").unlink()
    assert digest_of(folders[0]) == digest_of(copy(folders[0], tmp_path / "copy")) != digest_of(folders[1])


def all_of(official) -> TensorFiles:
    opened = open_official(*official)
    return TensorFiles({f"{network}/{n}": t for network, files in opened.items() for n, t in files.tensors.items()})


def test_copied_official_files_are_the_same(tiny_official, copied):
    for path in copied.ckpt_dir.rglob("*"):
        os.utime(path, (1, 1))
    before = identity_of(all_of(tiny_official), [])
    assert identity_of(all_of(copied), []) == before
    shard = next(copied.ckpt_dir.glob("*.safetensors"))
    tensors = load_file(shard)
    next(iter(tensors.values())).flat[0] += 1
    save_file(tensors, shard)
    assert identity_of(all_of(copied), []) != before


def test_lora_files_count_with_their_scales(tiny_files, recordings, tmp_path):
    lora = recordings / "modules" / "lora.safetensors"
    other = Path(shutil.copyfile(lora, tmp_path / "renamed.safetensors"))
    dit = tiny_files["dit"]
    one, half, applied = LoraFile(lora), LoraFile(lora, 0.5), LoraFile(lora, apply_alpha=True)
    found = [identity_of(dit, added) for added in ([], [one], [half], [one, half], [applied])]
    assert len(set(found)) == 5
    assert identity_of(dit, [LoraFile(other)]) == identity_of(dit, [LoraFile(str(other))]) == found[1]
