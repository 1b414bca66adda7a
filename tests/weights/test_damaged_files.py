"""Damaged and strange files of tensors: each is refused in a sentence that names the file, none is read as other values."""

import json
import os
import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from itjax.errors import UserError
from itjax.weights.torch_files import check_names, open_tensors


def refusal(path: Path) -> str:
    """The message with which a file is refused, when it is opened or read."""
    with pytest.raises(UserError) as caught:
        found = open_tensors(path)
        for name in found.names():
            found.read(name)
    return str(caught.value)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    base = torch.randn(64, 16)
    return {"a": torch.randn(32, 48), "b": torch.randn(7).bfloat16(), "c": base[3:9], "d": base, "none": torch.zeros(0)}


def flipped(path: Path, byte: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def test_every_flipped_bit_of_a_pth_is_found(weights, tmp_path):
    """All of the values and the pickle; torch itself loads most of these files without a word."""
    path = tmp_path / "x.pth"
    torch.save(weights, path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = [
            entry
            for entry in archive.infolist()
            if "data" in entry.filename.rpartition("/")[2] or "/data/" in entry.filename
        ]
        places = [(whole.index(archive.read(entry)), entry.file_size) for entry in entries if entry.file_size]
    rng = np.random.default_rng(0)
    for start, size in places:
        for byte in rng.integers(start, start + size, 8):
            flipped(path, byte, rng.integers(8))
            assert str(path) in refusal(path)
            path.write_bytes(whole)
    found = open_tensors(path)
    for name, tensor in weights.items():
        np.testing.assert_array_equal(found.read(name).astype("f4"), tensor.float().numpy())


def test_flips_anywhere_in_a_pth_change_no_value(weights, tmp_path):
    path = tmp_path / "x.pth"
    torch.save(weights, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for byte in rng.integers(0, len(whole), 60):
        flipped(path, byte, rng.integers(8))
        try:
            found = open_tensors(path)
            for name, tensor in weights.items():  # the bit does not matter: padding, or a date
                np.testing.assert_array_equal(found.read(name).astype("f4"), tensor.float().numpy())
        except UserError as error:
            assert str(path) in str(error)
        path.write_bytes(whole)


def test_each_storage_is_compared_once_and_in_blocks(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("itjax.weights.torch_archive.CHECK_BYTES", 1000)
    summed = []
    crc32 = zipfile.crc32
    monkeypatch.setattr("zlib.crc32", lambda data, start=0: summed.append(len(data)) or crc32(data, start))
    torch.save({"a": weights["a"]}, tmp_path / "x.pth")
    found = open_tensors(tmp_path / "x.pth")
    summed.clear()
    for _ in range(2):
        np.testing.assert_array_equal(found.read("a", (slice(3, 5),)), weights["a"][3:5].numpy())
    assert sum(summed) == weights["a"].nbytes and max(summed) == 1000


def test_a_pth_that_was_saved_without_checksums_is_read(weights, tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    np.testing.assert_array_equal(open_tensors(tmp_path / "x.pth").read("a"), weights["a"].numpy())


def test_a_compressed_pth_is_refused(weights, tmp_path):
    torch.save(weights, tmp_path / "whole.pth")
    with (
        zipfile.ZipFile(tmp_path / "whole.pth") as whole,
        zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as zipped,
    ):
        for name in whole.namelist():
            zipped.writestr(name, whole.read(name))
    assert "x.pth is compressed" in refusal(tmp_path / "x.pth")


ODD_TENSORS = {
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "meta": lambda: torch.zeros(2, device="meta"),
    "complex64": lambda: torch.zeros(2, dtype=torch.complex64),
    "sparse": lambda: torch.eye(2).to_sparse(),
}


@pytest.mark.filterwarnings("ignore:torch.quantize", "ignore:TypedStorage")
@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_tensors_that_are_no_plain_arrays(kind, tmp_path):
    torch.save({"good": torch.ones(2), "odd": ODD_TENSORS[kind]()}, tmp_path / "x.pth")
    assert "x.pth" in refusal(tmp_path / "x.pth")


def archive(path: Path, content: bytes, **files: bytes) -> None:
    """A .pth file with a pickle of one's own."""
    with zipfile.ZipFile(path, "w") as file:
        for name, data in {"data.pkl": content, "byteorder": b"little", **files}.items():
            file.writestr(f"x/{name}", data)


def with_global(module: str, name: str, then: bytes = b"") -> bytes:
    """A pickle that asks for a name, and does something with it."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + then + b"."


STRANGE = {
    "code": (with_global("os", "system", b"X\x04\x00\x00\x00true\x85R"), "was refused.*os.system"),
    "a builtin": (with_global("builtins", "eval", b"X\x01\x00\x00\x001\x85R"), "was refused.*builtins.eval"),
    "a name of torch": (with_global("torch", "load", b"X\x01\x00\x00\x00x\x85R"), "no named tensors"),
    "state of a name": (with_global("torch", "FloatStorage", b"}X\x01\x00\x00\x00aK\x01sb"), "damaged"),
    "state of a class": (with_global("collections", "OrderedDict", b"}X\x04\x00\x00\x00keysK\x01sb"), "damaged"),
    "memory for numbered objects": (b"\x80\x02Nr\xff\xff\xff\xff.", "numbers more objects"),
    "a storage that is not there": (b"\x80\x02(X\x07\x00\x00\x00storageNX\x01\x00\x00\x009NNtQ.", "damaged"),
    "no pickle": (b"", "damaged"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_pickles_that_torch_did_not_write(what, tmp_path):
    content, message = STRANGE[what]
    archive(tmp_path / "x.pth", content)
    assert re.search(message, refusal(tmp_path / "x.pth"))
    assert list(OrderedDict(a=1).keys()) == ["a"]


def test_archives_of_another_kind(tmp_path):
    archive(tmp_path / "big.pth", b"\x80\x02}.", byteorder=b"big")
    assert "another byte order" in refusal(tmp_path / "big.pth")
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as file:
        file.writestr("notes.txt", "")
    assert "has no data.pkl" in refusal(tmp_path / "x.pth")


@pytest.mark.parametrize("offset", [5, 2**20, -1])
def test_a_tensor_beyond_its_values(offset, tmp_path):
    """The first number of a tensor of 4 in a storage of 8 is moved."""
    torch.save({"w": torch.arange(8.0)[4:]}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as file:
        entries = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
    shape = b"QK\x04K\x04\x85"  # the storage, then first number and shape
    assert shape in entries["data.pkl"]

    def moved(first: int) -> None:
        start = b"QJ" + first.to_bytes(4, "little", signed=True) + b"K\x04\x85"
        archive(tmp_path / "x.pth", entries["data.pkl"].replace(shape, start), **{"data/0": entries["data/0"]})

    moved(3)
    np.testing.assert_array_equal(open_tensors(tmp_path / "x.pth").read("w"), [3, 4, 5, 6])
    moved(offset)
    assert "damaged" in refusal(tmp_path / "x.pth")


def test_parameters_and_views_that_share_values_are_read(tmp_path):
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    torch.save(OrderedDict(w=weight, row=weight[1], turned=weight.T, eight=weight.to(torch.float8_e5m2)), tmp_path / "x.pth")
    found = open_tensors(tmp_path / "x.pth")
    for name, expected in {"w": weight, "row": weight[1], "turned": weight.T, "eight": weight}.items():
        np.testing.assert_array_equal(found.read(name).astype("f4"), expected.detach().numpy())


def test_a_pth_with_numbers_for_names(tmp_path):
    torch.save({1: torch.ones(2)}, tmp_path / "x.pth")
    assert "names are not text: 1" in refusal(tmp_path / "x.pth")


def test_networks_have_no_integers(tmp_path):
    torch.save({"w": torch.ones(2, dtype=torch.int32), "v": torch.ones(2)}, tmp_path / "x.pth")
    found = open_tensors(tmp_path / "x.pth")
    with pytest.raises(UserError, match="1 not of floating-point numbers: w int32"):
        check_names({"w": (2,), "v": (2,)}, found, "x.pth")


def entry(start: int, stop: int, shape=(1,), dtype="F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


HEADERS = {
    "negative offsets": {"w": entry(-4, 0)},
    "overlap": {"w": entry(0, 4), "v": entry(2, 6)},
    "the same bytes twice": {"w": entry(0, 4), "v": entry(0, 4)},
    "a gap": {"w": entry(0, 4), "v": entry(8, 12)},
    "backwards": {"w": entry(4, 0)},
    "beyond the end": {"w": entry(0, 400, (100,))},
    "too short for the type": {"w": entry(0, 4, dtype="F64")},
    "fractional shape": {"w": entry(0, 4, (1.0,))},
    "negative shape": {"w": entry(0, 4, (-1, -1))},
    "huge shape": {"w": entry(0, 4, (2**63, 2**62))},
    "shape null": {"w": {"dtype": "F32", "shape": None, "data_offsets": [0, 4]}},
    "three offsets": {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}},
    "no type": {"w": {"shape": [1], "data_offsets": [0, 4]}},
    "unknown type": {"w": entry(0, 4, dtype="F33")},
    "complex": {"w": entry(0, 8, dtype="C64")},
    "half a byte": {"w": entry(0, 1, (2,), dtype="F4")},
    "a number": {"w": 1},
    "a list": [1],
}
TEXTS = {name: json.dumps(header).encode() for name, header in HEADERS.items()} | {
    "deep": b'{"w":' * 100_000,
    "deep lists": b"[" * 100_000,
    "the name twice": b'{"w":%s,"w":%s}' % tuple(json.dumps(entry(i, i + 4)).encode() for i in (0, 4)),
    "the name twice for the same bytes": b'{"w":%s,"w":%s}'
    % tuple(json.dumps(entry(0, 8, shape)).encode() for shape in ((2,), (1, 2))),
    "no text": bytes(range(128, 256)),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_headers_of_safetensors(text, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    assert "x.safetensors" in refusal(tmp_path / "x.safetensors")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**32, 100_000_001])
def test_the_header_has_a_bound(length, tmp_path):
    with (tmp_path / "x.safetensors").open("wb") as file:
        file.write(length.to_bytes(8, "little") + b"{")
        file.truncate(min(length, 2**33) + 100)  # without using the disk
    assert "x.safetensors" in refusal(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth", "x.safetensors.index.json"])
def test_pipes_folders_and_devices_are_not_opened(name, tmp_path):
    os.mkfifo(tmp_path / name)
    assert name in refusal(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    assert name in refusal(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert name in refusal(tmp_path / name)


@pytest.mark.parametrize("path", ["a" * 300 + ".safetensors", "a\0.safetensors", "\udcff.pth"])
def test_names_that_no_file_can_have(path, tmp_path):
    refusal(tmp_path / path)


INDEXES = [
    *("[]", "1", "null", "{}", "[" * 100_000, '{"weight_map": 3}', '{"weight_map": [1]}', '{"weight_map": {"w": 3}}'),
    *('{"weight_map": {"w": null}}', '{"weight_map": {"w": ["x"]}}', '{"weight_map": {"w": ""}}'),
    *('{"weight_map": {"w": "a\\u0000"}}', '{"weight_map": {"w": "pipe.safetensors"}}'),
    *('{"weight_map": {"w": "' + "a" * 300 + '"}}', '{"weight_map": {"w": "."}}'),
]


@pytest.mark.parametrize("content", INDEXES, ids=range(len(INDEXES)))
def test_an_index_of_another_shape(content, tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "x.safetensors.index.json").write_text(content)
    assert "x.safetensors.index.json" in refusal(tmp_path / "x.safetensors.index.json")
