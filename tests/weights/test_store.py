"""One checkpoint for all networks: Orbax reads it, shards get what is theirs, nothing half-done appears."""

import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from itjax.errors import OutputError, UserError
from itjax.weights import store
from itjax.weights.lazy import LazyTensor
from itjax.weights.store import open_checkpoint, read_metadata, restore, save

ROOT = Path(__file__).parents[2]
METADATA = {"dit": {"layers": 3, "eps": 1e-6}, "names": ["a", "b"]}


@pytest.fixture(scope="module")
def arrays() -> dict:
    rng = np.random.default_rng(0)
    return {
        "dit": {
            "blocks": {
                "kernel": rng.normal(size=(3, 16, 8)).astype(ml_dtypes.bfloat16),
                "bias": np.zeros((3, 8), "f4"),
            },
            "head": {"kernel": rng.normal(size=(8, 4)).astype(np.float16)},
        },
        "vae": {"conv": rng.normal(size=(3, 3, 3, 4, 8)).astype(np.float32), "scale": np.float32(3)[...]},
        "unused": {"text.head.0": rng.normal(size=7).astype(ml_dtypes.float8_e4m3fn), "ids": np.arange(5)},
    }


def lazy(arrays: dict) -> dict:
    return jax.tree.map(lambda a: LazyTensor(a.shape, a.dtype, lambda _: a), arrays)


def abstract(arrays: dict) -> dict:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), arrays)


def assert_same(found: dict, expected: dict) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for path, value in jax.tree.leaves_with_path(expected):
        here = found
        for key in path:
            here = here[key.key]
        assert here.dtype == value.dtype and here.shape == value.shape, path
        assert np.asarray(here).tobytes() == value.tobytes(), path


@pytest.fixture(scope="module")
def saved(arrays, tmp_path_factory) -> Path:
    """Chunks so small that every array has many."""
    directory = tmp_path_factory.mktemp("checkpoint") / "weights"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "MAX_CHUNK_BYTES", 64)
        patch.setattr(store, "WRITE_BYTES", 200)
        save(directory, lazy(arrays), METADATA)
    return directory


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "weights"))


def test_round_trip(arrays, saved):
    without_ids = {**arrays, "unused": {"text.head.0": arrays["unused"]["text.head.0"]}}  # JAX has no int64 by default
    found = restore(saved, abstract(without_ids))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found))
    assert_same(found, without_ids)
    assert read_metadata(saved) == METADATA
    assert os.listdir(saved.parent) == ["weights"]


def test_plain_orbax_restores_it(arrays, saved):
    assert_same(ocp.PyTreeCheckpointer().restore(saved), arrays)
    with ocp.StandardCheckpointer() as checkpointer:
        without_ids = {"dit": arrays["dit"], "vae": arrays["vae"], "unused": {"text.head.0": np.zeros(7, "f4")}}
        wanted = abstract(without_ids) | {"unused": abstract(arrays["unused"])}
        found = checkpointer.restore(saved, wanted)
    assert_same(found["dit"], arrays["dit"])
    assert found["dit"]["blocks"]["kernel"].dtype == jnp.bfloat16


def test_what_plain_orbax_saved_is_read(arrays, tmp_path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "trained", {"dit": jax.tree.map(jnp.asarray, arrays["dit"])})
    assert_same(restore(tmp_path / "trained", abstract({"dit": arrays["dit"]})), {"dit": arrays["dit"]})
    with pytest.raises(UserError, match=r"not a checkpoint made by convert_weights\.py: it has no sizes\.json"):
        read_metadata(tmp_path / "trained")


def test_only_the_subtree_asked_for_is_read(arrays, copied):
    for leaf in copied.glob("dit.*"):
        shutil.rmtree(leaf)
    assert_same(restore(copied, abstract({"vae": arrays["vae"]})), {"vae": arrays["vae"]})


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_cast_while_reading(dtype, arrays, saved):
    wanted = {"vae": {"conv": jax.ShapeDtypeStruct((3, 3, 3, 4, 8), dtype)}, "dit": {"head": {"kernel": None}}}
    wanted["dit"]["head"]["kernel"] = jax.ShapeDtypeStruct((8, 4), dtype)
    found = restore(saved, wanted)
    expected = {"vae": {"conv": arrays["vae"]["conv"].astype(dtype)}}
    expected["dit"] = {"head": {"kernel": arrays["dit"]["head"]["kernel"].astype(dtype)}}
    assert_same(found, expected)


SHARDED = """
import sys, jax, numpy as np, jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from itjax.weights.lazy import LazyTensor
from itjax.weights.store import restore
mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))
specs = {"kernel": P(None, "model", "data"), "bias": P(None, "model"), "conv": P(), "scale": P()}
shapes = {"kernel": (3, 16, 8), "bias": (3, 8), "conv": (3, 3, 3, 4, 8), "scale": ()}
dtypes = {"kernel": jnp.bfloat16, "bias": jnp.bfloat16, "conv": jnp.float32, "scale": jnp.float32}
wanted = {n: jax.ShapeDtypeStruct(shapes[n], dtypes[n], sharding=NamedSharding(mesh, specs[n])) for n in specs}
found = restore(sys.argv[1], {
    "dit": {"blocks": {n: wanted[n] for n in ("kernel", "bias")}}, "vae": {n: wanted[n] for n in ("conv", "scale")}})
for name, array in (found["dit"]["blocks"] | found["vae"]).items():
    assert array.sharding == wanted[name].sharding and array.dtype == dtypes[name], name
    assert len(array.addressable_shards) == 8
    np.save(f"{sys.argv[2]}/{name}.npy", np.asarray(array.astype(jnp.float32)))
    for shard in array.addressable_shards:
        assert (np.asarray(shard.data) == np.asarray(array)[shard.index]).all()
"""


def run(script: str, *arguments, **environment) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_onto_eight_devices(arrays, saved, tmp_path):
    process = run(SHARDED, saved, tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=8")
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 0, output
    for name, expected in (arrays["dit"]["blocks"] | arrays["vae"]).items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), expected.astype(np.float32))


def test_each_shard_is_read_once(arrays, saved, monkeypatch):
    sharding = jax.sharding.NamedSharding(jax.sharding.Mesh(jax.devices(), "x"), jax.sharding.PartitionSpec())
    reads = []
    read = store._read_store
    monkeypatch.setattr(store, "_read_store", lambda *args: reads.append(args[1]) or read(*args))
    restore(saved, {"vae": {"conv": jax.ShapeDtypeStruct((3, 3, 3, 4, 8), jnp.float32, sharding=sharding)}})
    assert reads == ["vae/conv"]


def test_reading_by_path_and_slice(arrays, saved):
    found = open_checkpoint(saved)
    assert set(found.names()) == {
        *("dit/blocks/kernel", "dit/blocks/bias", "dit/head/kernel"),
        *("vae/conv", "vae/scale"),
        *("unused/text.head.0", "unused/ids"),
    }
    kernel = arrays["dit"]["blocks"]["kernel"]
    assert found.shape("dit/blocks/kernel") == (3, 16, 8) and found.dtype("dit/blocks/kernel") == kernel.dtype
    for index in ((), (slice(1, 2),), (slice(None), slice(3, 9), slice(-2, None))):
        value = found.read("dit/blocks/kernel", index)
        assert value.dtype == kernel.dtype
        np.testing.assert_array_equal(value, kernel[index])
    np.testing.assert_array_equal(found.read("unused/ids"), np.arange(5))
    assert found.read("vae/scale") == 3


@pytest.mark.parametrize("block", [1, 64, 300])
def test_reading_in_blocks(block, arrays, saved, monkeypatch):
    monkeypatch.setattr(store, "READ_BYTES", block)
    found, conv = open_checkpoint(saved), arrays["vae"]["conv"]
    for index in ((), (slice(1, 3),), (slice(1, 1),), (slice(None), slice(2, 3), slice(1, None))):
        np.testing.assert_array_equal(found.read("vae/conv", index), conv[index])
    for name in ("conv", "scale"):
        wanted = {"vae": {name: jax.ShapeDtypeStruct(arrays["vae"][name].shape, jnp.bfloat16)}}
        assert_same(restore(saved, wanted), {"vae": {name: arrays["vae"][name].astype(jnp.bfloat16)}})


def test_saved_leaves_do_not_stay_in_memory(tmp_path):
    made, alive = [], []

    def read(_) -> np.ndarray:
        array = np.ones((4, 1000), np.float32)
        made.append(weakref.ref(array))
        alive.append(sum(reference() is not None for reference in made))
        return array

    tree = {f"w{i}": LazyTensor((4, 1000), np.dtype(np.float32), read) for i in range(20)}
    save(tmp_path / "weights", {"dit": tree}, {})
    assert max(alive) <= 2  # the thread that wrote the one before may let go of it a moment late


def test_blocks_are_whole_chunks_and_cover_all():
    for shape in ((40, 5120, 13824), (256384, 4096), (7,), (), (3, 3, 3, 384, 384), (0, 4), (48, 16, 16)):
        leaf = LazyTensor(shape, np.dtype(ml_dtypes.bfloat16), lambda _: pytest.fail("was read"))
        chunk = store._chunk(shape, 2)
        assert np.prod(chunk) * 2 <= store.MAX_CHUNK_BYTES
        blocks = [block[0] for block in store._blocks(leaf, chunk) if block]
        if shape:
            assert sum(block.stop - block.start for block in blocks) == shape[0]
            assert all(block.start % chunk[0] == 0 for block in blocks)
    assert store._chunk((40, 5120, 13824), 2)[0] == 1


SLOW = """
import sys, time, numpy as np
from itjax.weights.lazy import LazyTensor
from itjax.weights.store import save
def read(i):
    print("leaf", i, flush=True)
    time.sleep(0 if i < 2 else 100)
    return np.ones(1000, np.float32)
save(sys.argv[1], {f"w{i}": LazyTensor((1000,), np.dtype("f4"), lambda _, i=i: read(i)) for i in range(4)}, {})
"""


def test_killed_while_saving(tmp_path, arrays):
    target = tmp_path / "weights"
    process = run(SLOW, target)
    while (line := process.stdout.readline()) != "leaf 2\n":
        assert line, "ended early"
    assert not target.exists()
    with pytest.raises(UserError, match="is not a folder"):
        read_metadata(target)
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    assert not target.exists()
    [left] = os.listdir(tmp_path)
    assert left.startswith("weights.tmp-")
    save(target, lazy(arrays), METADATA)
    assert os.listdir(tmp_path) == ["weights"]
    assert_same(restore(target, abstract({"dit": arrays["dit"]})), {"dit": arrays["dit"]})


def test_targets_are_checked_before_anything_is_read(tmp_path):
    tree = {"w": LazyTensor((1,), np.dtype("f4"), lambda _: pytest.fail("was read"))}
    with pytest.raises(UserError, match="already exists"):
        save(tmp_path, tree, {})
    with pytest.raises(UserError, match="nowhere does not exist"):
        save(tmp_path / "nowhere" / "weights", tree, {})
    with pytest.raises(OutputError, match="GB are free"):
        save(tmp_path / "weights", {"w": LazyTensor((10**9, 10**9), np.dtype("f4"), tree["w"].read)}, {})
    for keys in ("a/b", "", 3):
        with pytest.raises(ValueError, match="part of a path"):
            save(tmp_path / "weights", {keys: tree["w"]}, {})
    with pytest.raises(ValueError, match="same name"):
        save(tmp_path / "weights", {"a": {"b": tree["w"]}, "a.b": tree["w"]}, {})
    assert os.listdir(tmp_path) == []


def test_full_disk(tmp_path, disk_of):
    tree = {"dit": {"w": LazyTensor((500, 1000), np.dtype("f4"), lambda _: np.ones((500, 1000), np.float32))}}
    for limit in (2**20, 10):  # while a leaf is written, while Orbax writes its own files
        with disk_of(limit), pytest.raises(OutputError, match="cannot write"):
            save(tmp_path / "weights", tree, {})
        assert os.listdir(tmp_path) == []


def test_a_leaf_unlike_its_declaration(tmp_path):
    tree = {"dit": {"w": LazyTensor((2,), np.dtype("f4"), lambda _: np.zeros(2))}}
    with pytest.raises(ValueError, match=r"dit/w was declared as float32\[2\] but is float64\[2\]"):
        save(tmp_path / "weights", tree, {})
    assert os.listdir(tmp_path) == []


def test_missing_leaves_and_other_shapes_are_named(arrays, saved):
    wanted = abstract({"dit": {"blocks": {"gate": np.zeros(3)}, "tail": np.zeros(1)}})
    with pytest.raises(UserError, match="lacks 2 arrays: dit/blocks/gate, dit/tail"):
        restore(saved, wanted)
    wanted = abstract({"dit": {"blocks": {"kernel": np.zeros((40, 16, 8)), "bias": arrays["dit"]["blocks"]["bias"]}}})
    with pytest.raises(UserError, match=r"dit/blocks/kernel: expected \[40, 16, 8\], found \[3, 16, 8\]"):
        restore(saved, wanted)


@pytest.mark.parametrize("harm", ["lost", "cut", "flipped", "no description"])
def test_damaged_arrays_are_named(harm, arrays, copied):
    folder = copied / "dit.blocks.kernel"
    chunk = sorted(path for path in (folder / "c").rglob("*") if path.is_file())[3]
    content = chunk.read_bytes()
    if harm == "lost":
        chunk.unlink()
    elif harm == "no description":
        shutil.rmtree(folder)
    else:
        chunk.write_bytes(content[:-1] if harm == "cut" else bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(UserError, match="weights is damaged: dit/blocks/kernel cannot be read"):
        restore(copied, abstract({"dit": arrays["dit"]}))
    with pytest.raises(UserError, match="weights is damaged: dit/blocks/kernel cannot be read"):
        open_checkpoint(copied).read("dit/blocks/kernel")


def test_folders_that_are_no_checkpoint(copied, tmp_path):
    for call in (read_metadata, open_checkpoint, lambda folder: restore(folder, {})):
        with pytest.raises(UserError, match="is not a folder"):
            call(tmp_path / "nothing")
    (copied / "_METADATA").write_text("{")
    with pytest.raises(UserError, match=r"_METADATA: cannot be read as JSON.*damaged"):
        open_checkpoint(copied)
    (copied / "_METADATA").unlink()
    with pytest.raises(UserError, match="not a checkpoint: it has no _METADATA"):
        open_checkpoint(copied)


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"version": 2, "sizes": {}})])
def test_sizes_that_cannot_be_read(content, copied):
    (copied / "sizes.json").write_text(content)
    with pytest.raises(UserError, match=r"sizes\.json(: cannot be read as JSON| is damaged| has version 2)"):
        read_metadata(copied)
