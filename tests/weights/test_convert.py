"""convert_weights.py: there and back without the loss of a bit, and nothing half-done however it ends."""

import contextlib
import errno
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from itjax.commands import convert as convert_weights
from itjax.commands import flags, infer
from itjax.configs.tiny import PRESET
from itjax.errors import OutputError, UserError
from itjax.weights import convert, store
from itjax.weights.load import torch_view
from itjax.weights.lora import LoraFile, with_loras
from itjax.weights.official import open_official
from itjax.weights.sources import preset_of
from itjax.weights.verify import verify_checkpoint

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
NETWORKS = ("dit", "vae", "umt5", "clip", "wav2vec2")


@pytest.fixture(scope="module")
def printed() -> io.StringIO:
    """What the conversion of `converted` printed."""
    return io.StringIO()


@pytest.fixture(scope="module")
def converted(tiny_official, tmp_path_factory, printed) -> Path:
    output = tmp_path_factory.mktemp("converted") / "checkpoint"
    with contextlib.redirect_stdout(printed):
        assert convert_weights.main([*tiny_official.flags, "--output", str(output), "--verify"]) == 0
    return output


@pytest.fixture(scope="module")
def returned(converted, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("returned") / "official"
    assert convert_weights.main(["--to-torch", "--checkpoint", str(converted), "--output", str(output)]) == 0
    return output


@pytest.fixture
def lora(recordings) -> Path:
    return recordings / "modules" / "lora.safetensors"


def files_in(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def fails(arguments: list, output: Path, capsys) -> str:
    """What a conversion says that has to end with status 2 and leave nothing behind."""
    before = set(output.parent.iterdir())
    assert convert_weights.main([*map(str, arguments), "--output", str(output)]) == 2
    assert set(output.parent.iterdir()) == before
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def test_a_damaged_checkpoint_is_found_by_verify(converted, printed, tmp_path, capsys):
    assert f"{converted} is intact" in printed.getvalue()
    damaged = shutil.copytree(converted, tmp_path / "damaged")
    flip_in(damaged / "vae.encoder.conv_in.conv.kernel")
    message = fails(["--to-torch", "--verify", "--checkpoint", damaged], tmp_path / "out", capsys)
    assert f"{damaged} is damaged: vae/encoder/conv_in/conv/kernel cannot be read" in message
    arguments = flags.parser("infer.py").parse_args(["--checkpoint", str(damaged), "--verify"])
    with pytest.raises(UserError, match="vae/encoder/conv_in/conv/kernel"):
        infer.open_weights(arguments)


def flip_in(array: Path) -> None:
    """Flips a bit in a chunk of an array in a checkpoint."""
    chunk = next(path for path in array.rglob("c/**/*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[5] ^= 4
    chunk.write_bytes(content)


@pytest.mark.parametrize("network", NETWORKS)
def test_there_and_back(network, tiny_files, returned, assert_equal_files):
    found = open_official(*(returned / name for name in ("Wan2.1-I2V-14B-480P", "chinese-wav2vec2-base")),
                          returned / "InfiniteTalk/single/infinitetalk.safetensors")  # fmt: skip
    assert_equal_files(found[network], tiny_files[network])


def test_the_files_are_laid_out_as_the_official_ones(recordings, returned, tiny_official):
    shards = {f"Wan2.1-I2V-14B-480P/diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    whole = "Wan2.1-I2V-14B-480P/diffusion_pytorch_model-00001-of-00001.safetensors"
    assert files_in(returned) == files_in(recordings / "checkpoint") - shards - {"sizes.json"} | {whole}
    published = load_file(tiny_official.infinitetalk)
    assert load_file(returned / "InfiniteTalk/single/infinitetalk.safetensors").keys() == published.keys()
    for name, pickled in tiny_official.pickles.items():
        ours = torch.load(returned / "Wan2.1-I2V-14B-480P" / pickled.name, weights_only=True)
        theirs = torch.load(pickled, weights_only=True)
        assert ours.keys() == theirs.keys(), name
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


def test_companion_files_come_along(recordings, converted, returned):
    source = recordings / "checkpoint"
    small = {file for file in files_in(source) if not file.endswith((".safetensors", ".pth", ".index.json"))} - {
        "sizes.json"
    }
    assert len(small) == 7
    for name in small:
        assert (returned / name).read_bytes() == (source / name).read_bytes()
    assert (store.companion_files(converted) / "google/umt5-xxl/tokenizer.json").is_file()


def test_the_sizes_come_along(converted):
    assert preset_of(converted) == PRESET


def test_what_is_not_used_is_kept_under_its_own_name(converted, tiny_files, tiny_parts):
    arrays, part = store.open_checkpoint(converted), tiny_parts["clip"]
    kept = {name for name in tiny_files["clip"].names() if part.is_unused(name)}
    assert "log_scale" in kept and any(name.startswith("textual.") for name in kept)
    assert {f"unused/clip/{name}" for name in kept} == {n for n in arrays.names() if n.startswith("unused/clip/")}
    for name in kept:
        np.testing.assert_array_equal(arrays.read(f"unused/clip/{name}"), tiny_files["clip"].read(name), strict=True)


def test_report(converted, printed):
    lines = [line for line in printed.getvalue().splitlines() if " GB" in line]  # the others are those of --verify
    assert [line.split(": 0.00")[0] for line in lines[:-1]] == [*NETWORKS, "unused"]
    assert lines[-1].startswith(f"wrote {converted} in ") and "peak host memory " in lines[-1]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_converted_checkpoint_seen_by_torch_names(network, converted, tiny_parts, tiny_files, assert_equal_files):
    view = torch_view(tiny_parts[network], store.open_checkpoint(converted), network)
    assert_equal_files(view, tiny_files[network])
    rng = np.random.default_rng(0)
    for name in view.names()[:: max(1, len(view.names()) // 10)]:
        bounds = [sorted(rng.choice(length + 1, 2, replace=False)) for length in view.shape(name)]
        index = tuple(slice(int(start), int(stop)) for start, stop in bounds)
        np.testing.assert_array_equal(view.read(name, index), tiny_files[network].read(name, index), strict=True)


def test_lora_into_a_whole_dit(converted, lora, tiny_official, tiny_files, tiny_parts, tmp_path, assert_equal_files, capsys):
    """Merged on the way, merged into the checkpoint when it is read, or into the official files: bit for bit one."""
    save_file({name: tiny_files["dit"].read(name) for name in tiny_files["dit"].names()}, tmp_path / "dit.safetensors")
    save_file(load_file(lora) | {"odd": np.zeros(1)}, tmp_path / "lora.safetensors")
    flags = [*tiny_official.flags[:4], "--dit_path", str(tmp_path / "dit.safetensors"), "--preset", "tiny"]
    flags += ["--lora_dir", str(tmp_path / "lora.safetensors"), "--lora_scale", "0.8"]
    assert convert_weights.main([*flags, "--output", str(tmp_path / "out")]) == 0
    assert "1 key(s) match no tensor and are ignored: odd" in capsys.readouterr().err
    merged = torch_view(tiny_parts["dit"], store.open_checkpoint(tmp_path / "out"), "dit")
    assert_equal_files(merged, with_loras(tiny_files["dit"], [LoraFile(lora, 0.8)]))
    view = torch_view(tiny_parts["dit"], store.open_checkpoint(converted), "dit")
    assert_equal_files(with_loras(view, [LoraFile(lora, 0.8)]), merged)
    changed = {name for name in merged.names() if not np.array_equal(merged.read(name), tiny_files["dit"].read(name))}
    assert changed == load_file(lora.with_name("lora_merged_scale_0.8.safetensors")).keys()


def test_missing_files_are_named_before_anything_is_read(copied, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(convert_weights, "to_checkpoint", lambda *_: pytest.fail("began"))
    (copied.ckpt_dir / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    (copied.ckpt_dir / "Wan2.1_VAE.pth").unlink()
    message = fails(copied.flags, tmp_path / "out", capsys)
    assert "missing: diffusion_pytorch_model-00002-of-00002.safetensors" in message
    assert "--ckpt_dir:" in message and "Wan2.1_VAE.pth: no such file" in message


def test_wrong_tensors_are_named_before_anything_is_read(copied, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(convert_weights, "to_checkpoint", lambda *_: pytest.fail("began"))
    audio = load_file(copied.infinitetalk)
    audio["surplus"] = audio.pop("audio_proj.norm.weight")
    audio["audio_proj.norm.bias"] = np.zeros(29, np.float32)
    save_file(audio, copied.infinitetalk)
    message = fails(copied.flags, tmp_path / "out", capsys)
    assert "infinitetalk.safetensors" in message
    assert "1 missing: audio_proj.norm.weight [28]" in message
    assert "1 unexpected: surplus [28]" in message
    assert "1 with a wrong shape: audio_proj.norm.bias: expected [28], found [29]" in message


class Malicious:
    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return (os.system, (f"touch {self.file}",))


def test_a_pickle_that_would_run_code_is_refused(copied, tmp_path, capsys):
    torch.save({"x": Malicious(tmp_path / "executed")}, copied.pickles["clip"])
    assert "refused" in fails(copied.flags, tmp_path / "out", capsys)
    assert not (tmp_path / "executed").exists()


def test_a_lora_that_matches_nothing(tiny_official, tmp_path, capsys):
    save_file(
        {"unet.lora_up.weight": np.zeros((2, 2)), "unet.lora_down.weight": np.zeros((2, 2))}, tmp_path / "a.safetensors"
    )
    message = fails([*tiny_official.flags, "--lora_dir", tmp_path / "a.safetensors"], tmp_path / "out", capsys)
    assert "unet.lora_up.weight" in message


def test_numbers_of_loras_and_scales(tiny_official, lora, tmp_path, capsys):
    arguments = [*tiny_official.flags, "--lora_dir", lora, lora, "--lora_dir", lora, "--lora_scale", 1, 2]
    assert "3 LoRA files (--lora_dir) but 2 scales" in fails(arguments, tmp_path / "out", capsys)


@pytest.mark.parametrize("back", [False, True], ids=["to Orbax", "to torch"])
def test_an_output_that_exists_is_left_alone(back, tiny_official, converted, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    arguments = ["--to-torch", "--checkpoint", converted] if back else tiny_official.flags
    assert "already exists" in fails(arguments, tmp_path / "out", capsys)
    assert (tmp_path / "out" / "mine").read_text() == "precious"


@pytest.mark.parametrize("back", [False, True], ids=["to Orbax", "to torch"])
def test_an_output_that_exists_is_refused_before_anything_is_verified(
    back, tiny_official, converted, tmp_path, capsys, monkeypatch
):
    for module, function in ((convert_weights, "verify_official"), (convert_weights.result, "verify")):
        monkeypatch.setattr(module, function, lambda *_: pytest.fail("began"))
    (tmp_path / "out").mkdir()
    arguments = ["--to-torch", "--checkpoint", converted] if back else tiny_official.flags
    assert "already exists" in fails([*arguments, "--verify"], tmp_path / "out", capsys)


def test_ctrl_c_while_the_checkpoint_is_verified(tiny_official, tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(convert_weights, "verify_checkpoint", stop)
    assert convert_weights.main([*tiny_official.flags, "--verify", "--output", str(tmp_path / "out")]) == 130
    said = capsys.readouterr().err
    assert f"stopped; {tmp_path / 'out'} is complete, but was not verified" in said and "nothing was written" not in said
    verify_checkpoint(tmp_path / "out")


@pytest.mark.parametrize("back", [False, True], ids=["to Orbax", "to torch"])
def test_a_link_to_nowhere_is_refused_before_the_work(back, tiny_official, converted, tmp_path, capsys):
    (tmp_path / "out").symlink_to("nowhere")
    arguments = ["--to-torch", "--checkpoint", converted] if back else tiny_official.flags
    assert "already exists" in fails(arguments, tmp_path / "out", capsys)


def test_a_checkpoint_that_is_none(tmp_path, capsys):
    message = fails(["--to-torch", "--checkpoint", tmp_path], tmp_path / "out", capsys)
    assert "not a checkpoint made by convert_weights.py" in message


@pytest.mark.parametrize(
    "arguments", [["--ckpt_dir", "a"], ["--to-torch"], ["--to-torch", "--checkpoint", "a", "--lora_dir", "b"]]
)
def test_flags_that_do_not_go_together(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        convert_weights.main([*arguments, "--output", "c"])
    assert stopped.value.code == 2
    assert "--" in capsys.readouterr().err.splitlines()[-1]


def test_a_full_disk_leaves_nothing(converted, tmp_path, capsys, monkeypatch):
    def full(path, tensors):
        for tensor in tensors.values():
            tensor.read(())
        raise OutputError(f"cannot write {path}: {os.strerror(errno.ENOSPC)}")

    monkeypatch.setattr(convert, "write_pth", full)
    assert "No space left" in fails(["--to-torch", "--checkpoint", converted], tmp_path / "out", capsys)


def test_a_shard_that_vanishes_leaves_nothing(copied, tmp_path, capsys, monkeypatch):
    to_checkpoint = convert_weights.to_checkpoint
    shard = copied.ckpt_dir / "diffusion_pytorch_model-00001-of-00002.safetensors"

    def later(*arguments):
        shard.unlink()
        to_checkpoint(*arguments)

    monkeypatch.setattr(convert_weights, "to_checkpoint", later)
    assert shard.name in fails(copied.flags, tmp_path / "out", capsys)


KILLED = """
import os, signal, sys
from itjax.commands import convert as convert_weights
from itjax.commands import flags, infer
from itjax.weights import store, convert

def deadly(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)

module, function = sys.argv[1].split(".")
setattr({"checkpoint": store, "convert": convert}[module], function, deadly)
convert_weights.main(sys.argv[2:])
"""


def killed_at(where: str, arguments: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", KILLED, where, *arguments]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]


def test_killed_on_the_way_to_orbax(tiny_official, tmp_path):
    """kill -9 with the skeleton of a checkpoint on disk; test_store.py does the same at other moments."""
    killed_at("checkpoint._save_leaf", [*tiny_official.flags, "--output", str(tmp_path / "out")])
    assert len(list(tmp_path.glob("out.tmp-*"))) == 1
    assert not (tmp_path / "out").exists()


def test_killed_on_the_way_to_torch(converted, tmp_path, capsys):
    """Nothing under the name after kill -9 with half of the files written; the next run cleans up and ends well."""
    arguments = ["--to-torch", "--checkpoint", str(converted), "--output", str(tmp_path / "out")]
    killed_at("convert.write_pth", arguments)
    assert len(list(tmp_path.glob("out.tmp-*/out/*/*.safetensors"))) == 1
    assert not (tmp_path / "out").exists()
    assert convert_weights.main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# Each conversion is a fork of a process that has imported everything, and is killed at a moment of chance. Prints how many
# of them had ended before.
KILLED_AT_RANDOM = """
import os, random, shutil, signal, sys, time
from pathlib import Path
from itjax.commands import convert
from itjax.weights.verify import verify_checkpoint

out, kills, arguments = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
draws, ended = random.Random(4), 0
for _ in range(kills):
    child = os.fork()
    if child == 0:
        os._exit(convert.main([*arguments, "--output", str(out)]))
    time.sleep(draws.uniform(0, 4))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if out.exists():  # only whole
        ended += 1
        child = os.fork()
        if child == 0:
            verify_checkpoint(out)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        shutil.rmtree(out)
print(ended)
"""


@pytest.mark.soak
def test_fifty_kills_at_random_moments(tiny_official, converted, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED_AT_RANDOM, str(out), "50", *tiny_official.flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 50
    assert convert_weights.main([*tiny_official.flags, "--output", str(out)]) == 0
    assert store.stored_digest(out) == store.stored_digest(converted)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
