"""Files of tensors: what is written is what torch and safetensors read, and the other way round; nothing half-done."""

import json
import os
import pickle
import sys
import weakref
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch

from itjax.errors import OutputError, UserError
from itjax.weights import torch_files
from itjax.weights import torch_writer as writing
from itjax.weights.lazy import LazyTensor
from itjax.weights.torch_files import check_names, open_tensors
from itjax.weights.torch_writer import write_pth, write_safetensors, write_sharded


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "layers.0.weight": torch.randn(6, 5, 4).bfloat16(),
        "half": torch.randn(3, 4).half(),
        "float": torch.randn(7),
        "eight": torch.randn(4, 4).to(torch.float8_e4m3fn),
        "scale": torch.tensor(2.5),
        "ids": torch.arange(10),
        "mask": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
    }


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
    return tensor.contiguous().view(getattr(torch, f"int{8 * dtype.itemsize}")).numpy().view(dtype)


def as_tensors(state: dict[str, torch.Tensor]) -> dict[str, LazyTensor]:
    arrays = {name: as_numpy(tensor) for name, tensor in state.items()}
    return {name: LazyTensor(a.shape, a.dtype, lambda _, a=a: a) for name, a in arrays.items()}


def assert_holds(found: torch_files.TensorFiles, state: dict[str, torch.Tensor]) -> None:
    assert set(found.names()) == set(state)
    for name, tensor in state.items():
        expected = as_numpy(tensor)
        assert (found.shape(name), found.dtype(name)) == (expected.shape, expected.dtype)
        value = found.read(name)
        assert value.dtype == expected.dtype and value.shape == expected.shape
        assert value.tobytes() == expected.tobytes(), name


def save_safetensors(state, path):
    safetensors.torch.save_file(state, path)


def save_zip(state, path):
    torch.save(state, path)


def save_legacy(state, path):
    state.pop("eight", None)  # the format is older than float8
    torch.save(state, path, _use_new_zipfile_serialization=False)


WRITERS = pytest.mark.parametrize(
    ("name", "write"), [("x.safetensors", save_safetensors), ("x.pth", save_zip), ("x.bin", save_legacy)]
)


@WRITERS
def test_reads_what_torch_wrote(name, write, state, tmp_path):
    write(state, tmp_path / name)
    found = open_tensors(tmp_path / name)
    assert_holds(found, state)
    assert {tensor.file for tensor in found.tensors.values()} == {tmp_path / name}  # which messages about values name


@WRITERS
@pytest.mark.parametrize("index", [(), (slice(2, 5),), (slice(1, 2), slice(None), slice(1, 3)), (slice(4, 4),)])
def test_reads_parts(name, write, index, state, tmp_path):
    write(state, tmp_path / name)
    part = open_tensors(tmp_path / name).read("layers.0.weight", index)
    np.testing.assert_array_equal(part, as_numpy(state["layers.0.weight"])[index])


def test_a_part_does_not_hold_the_whole(tmp_path, state):
    for name, write in (("x.safetensors", save_safetensors), ("x.pth", save_zip)):
        write({"w": torch.zeros(1000, 1000)}, tmp_path / name)
        part = open_tensors(tmp_path / name).read("w", (slice(None), slice(0, 1)))
        root = part
        while root.base is not None:
            root = root.base
        assert root.nbytes == 4000


def test_parts_are_read_again_after_their_pages_were_dropped(tmp_path):
    weight = torch.randn(512, 1024)
    torch.save({"w": weight, "v": weight[:3].clone()}, tmp_path / "x.pth")
    found = open_tensors(tmp_path / "x.pth")
    for _ in range(2):
        for i in range(0, 512, 100):
            np.testing.assert_array_equal(found.read("w", (slice(i, i + 100),)), weight[i : i + 100].numpy())
        np.testing.assert_array_equal(found.read("v"), weight[:3].numpy())


def test_safetensors_written_are_read_by_torch(state, tmp_path):
    write_safetensors(tmp_path / "x.safetensors", as_tensors(state))
    assert_holds(open_tensors(tmp_path / "x.safetensors"), state)
    read = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert {name: tensor.dtype for name, tensor in read.items()} == {n: t.dtype for n, t in state.items()}
    assert all(as_numpy(read[name]).tobytes() == as_numpy(state[name]).tobytes() for name in state)
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_pth_written_is_read_by_torch(state, tmp_path):
    write_pth(tmp_path / "x.pth", as_tensors(state))
    read = torch.load(tmp_path / "x.pth", weights_only=True)
    assert list(read) == list(state)
    for name, tensor in state.items():
        assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape
        assert as_numpy(read[name]).tobytes() == as_numpy(tensor).tobytes()
        assert read[name].untyped_storage().nbytes() == tensor.nbytes  # its own, not a view of all of them
    assert os.listdir(tmp_path) == ["x.pth"]


def test_transposed_views_are_written_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "COPY_BYTES", 64)
    values = np.arange(600, dtype=np.float32).reshape(20, 30).T
    for write, name in ((write_safetensors, "x.safetensors"), (write_pth, "x.pth")):
        write(tmp_path / name, {"w": LazyTensor(values.shape, values.dtype, lambda _: values)})
        np.testing.assert_array_equal(open_tensors(tmp_path / name).read("w"), values)


def test_shards_and_their_index(state, tmp_path):
    write_sharded(tmp_path / "model", "diffusion_pytorch_model", as_tensors(state), shard_bytes=100)
    index = json.loads((tmp_path / "model" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in state.values())
    assert set(index["weight_map"]) == set(state)
    shards = sorted(path.name for path in (tmp_path / "model").glob("*.safetensors"))
    assert shards[0] == f"diffusion_pytorch_model-00001-of-{len(shards):05d}.safetensors" and len(shards) > 2
    assert set(index["weight_map"].values()) == set(shards)
    assert_holds(open_tensors(tmp_path / "model"), state)


@pytest.mark.parametrize("write", [write_safetensors, write_pth, lambda p, t: write_sharded(p, "model", t, 2**20)])
def test_writing_holds_one_tensor_at_a_time(write, tmp_path):
    made, alive = [], []

    def read(_) -> np.ndarray:
        array = np.zeros((4, 25000), np.float32)
        made.append(weakref.ref(array))
        alive.append(sum(reference() is not None for reference in made))
        return array

    write(tmp_path / "x.safetensors", {f"w{i}": LazyTensor((4, 25000), np.dtype(np.float32), read) for i in range(10)})
    assert alive == [1] * 10


def test_every_bad_shard_is_named(state, tmp_path):
    write_sharded(tmp_path, "model", as_tensors(state), shard_bytes=1)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["stray"] = content["weight_map"]["ids"]
    index.write_text(json.dumps(content))
    lost, cut = (tmp_path / content["weight_map"][name] for name in ("half", "float"))
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(UserError) as caught:
        open_tensors(tmp_path)
    message = str(caught.value)
    assert f"missing: {lost.name}" in message
    assert cut.name in message and "incomplete" in message
    assert "stray" in message and content["weight_map"]["ids"] in message
    assert content["weight_map"]["scale"] not in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
        (5).to_bytes(8, "little") + b"{nope",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}" + b"trailing",
    ],
)
def test_what_is_no_safetensors_file_is_named(content, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.safetensors"):
        open_tensors(tmp_path / "x.safetensors")


def test_header_that_contradicts_itself(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UserError, match=r"x\.safetensors is incomplete, damaged.*w"):
        open_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize(("name", "write"), [("x.safetensors", save_safetensors), ("x.pth", save_zip)])
@pytest.mark.parametrize("kept", [0, 900, 0.5])
def test_a_file_cut_after_it_was_opened(name, write, kept, state, tmp_path):
    """Whether its checksum is still to be compared, or was already."""
    write(state, tmp_path / name)
    fresh, read = open_tensors(tmp_path / name), open_tensors(tmp_path / name)
    for tensor in read.names():
        read.read(tensor)
    os.truncate(tmp_path / name, int(kept if kept != 0.5 else (tmp_path / name).stat().st_size / 2))
    for found in (fresh, read):
        with pytest.raises(UserError, match=f"{name} became shorter while it was being read"):
            for tensor in found.names():
                found.read(tensor)


def test_views_of_all_kinds_are_read_from_their_places(tmp_path):
    base = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    state = {
        "part": base[1:, 1:, :2], "transposed": base.permute(3, 0, 2, 1), "every second": base[:, ::2],
        "widened": base[0, 0, 0, :1].expand(7, 3), "one": base[1, 2, 3, 4], "none": base[:0], "same": base,
    }  # fmt: skip
    save_zip(state, tmp_path / "x.pth")
    found = open_tensors(tmp_path / "x.pth")
    for name, tensor in state.items():
        for index in ((), (slice(0, 1),), (slice(1, 3), slice(0, 2)))[: 1 + tensor.ndim]:
            np.testing.assert_array_equal(found.read(name, index), tensor[index].numpy(), err_msg=name)


def test_without_checksums(state, tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        save_zip(state, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_holds(open_tensors(tmp_path / "x.pth"), state)


def test_what_a_path_may_be(state, tmp_path):
    with pytest.raises(UserError, match="nothing: no such file"):
        open_tensors(tmp_path / "nothing")
    with pytest.raises(UserError, match="neither"):
        open_tensors(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"notes\.txt"):
        open_tensors(tmp_path / "notes.txt")
    (tmp_path / "q4.gguf").write_text("GGUF")
    with pytest.raises(UserError, match=r"q4\.gguf is quantised \(GGUF\), .*: use \.safetensors files"):
        open_tensors(tmp_path / "q4.gguf")
    save_legacy(state, tmp_path / "pytorch_model.bin")
    assert_holds(open_tensors(tmp_path), state)
    save_safetensors({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    assert open_tensors(str(tmp_path)).names() == ("a",)
    save_safetensors({"b": torch.zeros(2)}, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"several.*a\.safetensors, b\.safetensors"):
        open_tensors(tmp_path)
    both = open_tensors([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    assert both.shapes() == {"a": (2,), "b": (2,)}
    with pytest.raises(UserError, match="a is both in"):
        open_tensors([tmp_path / "a.safetensors", tmp_path / "a.safetensors"])
    (tmp_path / "x.safetensors.index.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.safetensors\.index\.json"):
        open_tensors(tmp_path)


def test_nested_state_dicts(state, tmp_path):
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "x.pth")
    assert_holds(open_tensors(tmp_path / "x.pth", key="state_dict"), state)
    torch.save(state, tmp_path / "plain.pth")
    assert_holds(open_tensors(tmp_path / "plain.pth", key="state_dict"), state)
    with pytest.raises(UserError, match="'model', only state_dict, epoch"):
        open_tensors(tmp_path / "x.pth", key="model")
    with pytest.raises(UserError, match="nested under one of: state_dict, epoch"):
        open_tensors(tmp_path / "x.pth")


class Evil:
    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return (open, (str(self.file), "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused(zipped, tmp_path):
    torch.save({"w": Evil(tmp_path / "ran")}, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"evil\.pth was refused.*run code.*open"):
        open_tensors(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_damaged_torch_files_are_named(state, tmp_path):
    save_zip(state, tmp_path / "x.pth")
    whole = (tmp_path / "x.pth").read_bytes()
    legacy = tmp_path / "legacy.pth"
    save_legacy(state, legacy)
    for content in (b"version https://git-lfs", whole[: len(whole) // 2], legacy.read_bytes()[:-20]):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.pth is damaged"):
            open_tensors(tmp_path / "bad.pth")
    (tmp_path / "bad.pth").write_bytes(pickle.dumps([1, 2], protocol=2))
    with pytest.raises(UserError, match=r"bad\.pth"):
        open_tensors(tmp_path / "bad.pth")


def test_without_torch(state, tmp_path, monkeypatch):
    save_zip(state, tmp_path / "x.pth")
    save_safetensors(state, tmp_path / "x.safetensors")
    save_legacy(dict(state), tmp_path / "old.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    for refused in (lambda: open_tensors(tmp_path / "old.pth"), lambda: write_pth(tmp_path / "y.pth", {})):
        with pytest.raises(UserError, match=r"pip install itjax\[convert\]"):
            refused()
    assert_holds(open_tensors(tmp_path / "x.pth"), state)
    assert_holds(open_tensors(tmp_path / "x.safetensors"), state)


def test_names_and_shapes_are_listed_together(tmp_path):
    save_safetensors(
        {**{f"extra{i}": torch.zeros(1) for i in range(12)}, "w": torch.zeros(2, 3)}, tmp_path / "x.safetensors"
    )
    found = open_tensors(tmp_path / "x.safetensors")
    check_names({"w": (2, 3)}, found, "x", allowed_extra=lambda name: name.startswith("extra"))
    with pytest.raises(UserError) as caught:
        check_names({"w": (3, 2), "lost": (4,)}, found, "the DiT of x.safetensors")
    message = str(caught.value)
    assert message.startswith("the DiT of x.safetensors")
    assert "1 missing: lost [4]" in message
    assert "12 unexpected: extra0 [1]; " in message and "and 2 more" in message
    assert "1 with a wrong shape: w: expected [3, 2], found [2, 3]" in message


def test_a_tensor_unlike_its_declaration_leaves_no_file(tmp_path):
    wrong = LazyTensor((3,), np.dtype(ml_dtypes.bfloat16), lambda _: np.zeros(3, np.float32))
    for write in (write_safetensors, write_pth):
        with pytest.raises(ValueError, match=r"w was declared as bfloat16\[3\] but is float32\[3\]"):
            write(tmp_path / "x", {"w": wrong})
    assert os.listdir(tmp_path) == []


def test_full_disk(tmp_path, disk_of):
    big = {"w": LazyTensor((500, 1000), np.dtype(np.float32), lambda _: np.ones((500, 1000), np.float32))}
    for write in (write_safetensors, write_pth, lambda path, tensors: write_sharded(path, "model", tensors)):
        for limit in (2**20, 2_000_064):  # the latter holds the tensor, but no header beside it
            with disk_of(limit), pytest.raises(OutputError, match="cannot write"):
                write(tmp_path / "x", big)
            assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_too_little_space_is_said_before_anything_is_read(tmp_path):
    huge = LazyTensor((10**9, 10**9), np.dtype(np.float32), lambda _: pytest.fail("was read"))
    for write in (write_safetensors, write_pth):
        with pytest.raises(OutputError, match="GB are free"):
            write(tmp_path / "x", {"w": huge})
    with pytest.raises(UserError, match="nowhere does not exist"):
        write_safetensors(tmp_path / "nowhere" / "x.safetensors", {})
