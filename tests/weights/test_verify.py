"""--verify finds every flipped bit of a checkpoint, in whichever of its files, and of files whose checksums are known."""

import hashlib
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from itjax.commands import flags, infer
from itjax.errors import UserError
from itjax.parallel.sharding import make_mesh
from itjax.progress import Progress
from itjax.weights import torch_files
from itjax.weights.lazy import LazyTensor
from itjax.weights.official import open_official
from itjax.weights.store import save
from itjax.weights.verify import published_sha256, verify_checkpoint, verify_official


class Notices(Progress):
    def __init__(self):
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    (tmp_path / "tokenizer.json").write_text('{"model": 1}')
    shapes = {"a": (3, 40, 20), "b": (7,), "scalar": (), "none": (0, 4)}
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape).astype(np.float32).reshape(shape) for name, shape in shapes.items()}
    tree = {"dit": {name: LazyTensor(array.shape, array.dtype, lambda _, a=array: a) for name, array in arrays.items()}}
    save(tmp_path / "weights", tree, {"layers": 3}, {"google/tokenizer.json": tmp_path / "tokenizer.json"})
    return tmp_path / "weights"


def flip(path: Path, byte: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def test_an_intact_checkpoint(checkpoint):
    notices = Notices()
    verify_checkpoint(checkpoint, notices)
    assert notices.texts == [f"{checkpoint} is intact"]


def test_a_flipped_bit_in_any_file_is_found(checkpoint):
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.stat().st_size]
    assert {"c", "0", "zarr.json", "sizes.json", "checksums.json", "_METADATA", "tokenizer.json"} <= {p.name for p in files}
    rng = np.random.default_rng(0)
    for path in sorted(files):
        whole = path.read_bytes()
        for byte in {0, len(whole) - 1, *rng.integers(0, len(whole), 3).tolist()}:
            flip(path, byte, int(rng.integers(8)))
            with pytest.raises(UserError, match=str(checkpoint)):
                verify_checkpoint(checkpoint)
            path.write_bytes(whole)
    verify_checkpoint(checkpoint)


def test_a_missing_file_is_found(checkpoint):
    for path in [path for path in checkpoint.rglob("*") if path.is_file() and path.name != "checksums.json"]:
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(UserError, match=str(checkpoint)):
            verify_checkpoint(checkpoint)
        path.write_bytes(whole)


def test_older_checkpoints_have_checksums_of_arrays_only(checkpoint):
    (checkpoint / "checksums.json").unlink()
    notices = Notices()
    verify_checkpoint(checkpoint, notices)
    assert "only its arrays" in notices.texts[0]
    flip(checkpoint / "dit.b" / "c" / "0", 2, 3)
    with pytest.raises(UserError, match="dit/b cannot be read"):
        verify_checkpoint(checkpoint)


def test_official_files(copied):
    notices = Notices()
    verify_official(open_official(*copied).values(), [], notices)
    assert {text.partition(": ")[2] for text in notices.texts} == {
        "no checksum is known (Hugging Face's download tool keeps them)",
        "matches the checksums in it, if there are any",
    }
    vae = copied.pickles["vae"]
    flip(vae, vae.stat().st_size // 2, 3)
    with pytest.raises(UserError, match=vae.name):
        verify_official(open_official(*copied).values(), [])


def test_files_that_hugging_face_downloaded(copied):
    shard = next(copied.ckpt_dir.glob("*.safetensors"))
    record = copied.ckpt_dir / ".cache" / "huggingface" / "download" / f"{shard.name}.metadata"
    record.parent.mkdir(parents=True)
    record.write_text(f"{'0' * 40}\n{hashlib.sha256(shard.read_bytes()).hexdigest()}\n1700000000.0\n")
    notices = Notices()
    verify_official(open_official(*copied).values(), [], notices)
    assert f"{shard}: matches its published SHA-256" in notices.texts
    flip(shard, shard.stat().st_size - 1, 0)
    with pytest.raises(UserError, match=rf"{shard.name} is not the published file"):
        verify_official(open_official(*copied).values(), [])


def test_the_cache_of_hugging_face(tmp_path):
    digest = hashlib.sha256(b"x").hexdigest()
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / digest).write_text("x")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / digest)
    assert published_sha256(tmp_path / "model.safetensors") == digest
    shutil.copyfile(tmp_path / "model.safetensors", tmp_path / "copy.safetensors")
    assert published_sha256(tmp_path / "copy.safetensors") is None


def test_infer_opens_and_checks_each_file_once(copied, monkeypatch):
    opened, open_pickle = [], torch_files.open_pickle
    monkeypatch.setattr(torch_files, "open_pickle", lambda path, key: opened.append(path) or open_pickle(path, key))
    given = {"--ckpt_dir": copied.ckpt_dir, "--wav2vec_dir": copied.wav2vec_dir, "--infinitetalk_dir": copied.infinitetalk}
    argv = ["--verify", *(str(part) for pair in given.items() for part in pair)]
    weights = infer.open_weights(flags.parser("infer.py").parse_args(argv))
    assert sorted(opened) == sorted(copied.pickles.values())
    monkeypatch.setattr(zlib, "crc32", lambda *_: pytest.fail("a checksum was computed again"))
    assert weights.read("vae", make_mesh(heads=weights.preset.networks.dit.num_heads), np.float32)
