"""Hundreds of damaged inputs, drawn from a seed: each is used, or refused in a sentence that names it and leaves nothing.

A damaged input may still be a valid one (a flipped bit in a sample of sound): then it must be readable to the end. Chunks
are not generated. `-m soak` runs the same with many more.
"""

import contextlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import av
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import tiny_dataset
from damage import ODD_VALUES, damage_array, damage_bytes, damage_json
from PIL import Image
from safetensors.numpy import load_file, save_file

from itjax import records
from itjax.commands import flags, infer
from itjax.conditioning.prompt import load_tokenizer
from itjax.media import sound_track, speech
from itjax.parallel.sharding import make_mesh
from itjax.pipeline import dub
from itjax.pipeline.noise_file import NoiseFile
from itjax.sampling.chunk import first_carry
from itjax.terminal import run_command

SECONDS = 60  # a case takes well under one; more than this is a hang
MEGABYTES = 2000
COUNTS = [40, pytest.param(300, marks=pytest.mark.soak)]
SAMPLING = ["--mode", "streaming", "--frame_num", "5", "--motion_frame", "1", "--sample_steps", "1"]
FILES = {  # of the official checkpoint: what is read of them
    "Wan2.1-I2V-14B-480P/Wan2.1_VAE.pth": "vae",
    "Wan2.1-I2V-14B-480P/config.json": "preset",
    "Wan2.1-I2V-14B-480P/diffusion_pytorch_model-00002-of-00002.safetensors": "dit",
    "Wan2.1-I2V-14B-480P/diffusion_pytorch_model.safetensors.index.json": "dit",
    "Wan2.1-I2V-14B-480P/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth": "clip",
    "Wan2.1-I2V-14B-480P/models_t5_umt5-xxl-enc-bf16.pth": "umt5",
    "Wan2.1-I2V-14B-480P/google/umt5-xxl/tokenizer.json": "tokenizer",
    "chinese-wav2vec2-base/model.safetensors": "wav2vec2",
    "InfiniteTalk/single/infinitetalk.safetensors": "dit",
}


class Accepted(Exception):
    """The run got as far as generating."""


class Case(NamedTuple):
    """`names`: one of them must be in the message; `run` returns an exit status."""

    what: str
    names: tuple[str, ...]
    run: Callable[[], int]


class Originals(NamedTuple):
    """What the cases damage copies of. `weights`: the flags of the official files; `damaged`: in the copy of `converted`."""

    folder: Path
    official: Path
    converted: Path
    lora: Path
    dataset: Path
    weights: list[str]
    damaged: list[Path]


def _read_to_the_end(inputs, settings, weights, mesh, noise, chunks, writer, progress) -> None:
    """In place of generating: reads what it would read."""
    for current in chunks:
        inputs.source.frame(current.start)
        if isinstance(noise, NoiseFile):
            noise.read(current.number)
    sound = speech.sound_track(inputs.request.sounds, inputs.request.audio_type)
    for _ in itertools.islice(sound_track.packets(sound), 500):
        pass
    raise Accepted


def _two_chunks(inputs, settings, weights, mesh, noise, chunks, writer, progress) -> None:
    """In place of generating: two grey chunks, and Ctrl-C."""
    picture = jnp.zeros((inputs.height, inputs.width, 3))
    state = {name: np.asarray(value) for name, value in first_carry(picture, settings.sampler)._asdict().items()}
    state["pinned_latents"] = np.asarray(settings.sampler.context_latents, state["pinned_latents"].dtype)
    for current in chunks[:2]:
        frames = np.zeros((settings.sampler.frame_num, inputs.height, inputs.width, 3), np.float32)[current.kept]
        writer.append(np.full(frames.shape, 127, np.uint8), frames, state)
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def originals(tmp_path_factory, recordings, checkpoint, made_once) -> Originals:
    folder = tmp_path_factory.mktemp("originals")
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8))
    for name in ("a.png", "a.jpg", "a.webp", "a.tiff", "a.gif"):
        picture.save(folder / name)
    noise = rng.normal(0, 0.1, 16_000).astype(np.float32)
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3"):
        soundfile.write(folder / name, noise, 16_000)
    for name, codec in (("a.mp4", "libx264"), ("a.mkv", "mpeg4"), ("a.avi", "mjpeg")):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for i in range(30):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * i, np.uint8))))
            container.mux(stream.encode(None))
    save_file(
        {f"noise_{i}": rng.normal(size=(16, 2, 6, 8)).astype(np.float32) for i in range(7)}, folder / "noise.safetensors"
    )
    official = recordings / "checkpoint"
    weights = [
        *("--ckpt_dir", str(official / "Wan2.1-I2V-14B-480P"), "--wav2vec_dir", str(official / "chinese-wav2vec2-base")),
        *("--infinitetalk_dir", str(official / "InfiniteTalk/single/infinitetalk.safetensors")),
    ]
    lora, dataset = recordings / "modules" / "lora.safetensors", made_once("clips", tiny_dataset.make_dataset)
    return Originals(folder, official, checkpoint, lora, dataset, weights, [])


@pytest.fixture(scope="module")
def opened(originals):
    """The weights, opened once for all cases in which they are intact."""
    return infer.open_weights(flags.parser("infer.py").parse_args(originals.weights))


@pytest.fixture(scope="module")
def begun(originals, opened):
    """A folder with a run that was stopped after two chunks, and the flags to continue it."""
    folder = originals.folder / "begun"
    folder.mkdir()
    given = [*SAMPLING, "--image", str(originals.folder / "a.png"), "--audio", str(originals.folder / "a.wav")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dub, "_generate", _two_chunks)
        patch.setattr(infer, "open_weights", lambda args: opened)
        saved = ["--save_file", str(folder / "out"), "--save_frames", str(folder / "out.npy")]
        assert infer.main([*originals.weights, *given, *saved]) == 130
    assert sorted(os.listdir(folder)) == ["out.mp4", "out.npy", "out.resume"]
    return folder, [*originals.weights, *given, "--resume"]


# -- the kinds of inputs ----------------------------------------------------------------------------------------------


def _damaged_copy(rng: random.Random, original: Path, folder: Path, name: str | None = None) -> tuple[str, Path]:
    what, data = damage_bytes(rng, original.read_bytes())
    path = folder / (name or original.name)
    path.unlink(missing_ok=True)  # it may be a link to the original
    path.write_bytes(data)
    return f"{what} of {path.name}", path


def media(rng, folder, originals, begun):
    image, video, sound = (
        originals.folder / f"a.{rng.choice(endings)}"
        for endings in (("png", "jpg", "webp", "tiff", "gif"), ("mp4", "mkv", "avi"), ("wav", "flac", "ogg", "mp3"))
    )
    place = rng.choice(("image", "video", "sound", "sound", "mask", "noise"))
    original = {"image": image, "video": video, "sound": sound, "mask": image}.get(
        place, originals.folder / "noise.safetensors"
    )
    what, path = _damaged_copy(rng, original, folder)
    given = {"--image": [image], "--audio": [originals.folder / "a.wav"]}
    match place:
        case "image":
            given["--image"] = [path]
        case "video":
            given = {"--video": [path], "--audio": given["--audio"]}
        case "sound":
            given["--audio"] = [path]
        case "mask":
            given |= {"--audio": [originals.folder / "a.wav"] * 2, "--audio_type": ["para"], "--mask": [image, path]}
        case _:
            given["--noise"] = [path]
    argv = [*SAMPLING, "--save_file", folder / "out", *(part for flag, values in given.items() for part in (flag, *values))]
    names = (path.name, "--mask") if place == "mask" else (path.name,)  # masks of another size, or that cover nothing
    return Case(f"{place}: {what}", names, lambda: infer.main([*originals.weights, *map(str, argv)]))


def request_json(rng, folder, originals, begun):
    content = {
        "prompt": "two people talk",
        "cond_video": "a.png",
        "cond_audio": {"person1": "a.wav", "person2": "a.flac"},
        "audio_type": "para",
        "bbox": {"person1": [5, 5, 50, 35], "person2": [5, 45, 50, 75]},
    }
    for name in ("a.png", "a.wav", "a.flac"):
        shutil.copyfile(originals.folder / name, folder / name)
    what, text = damage_json(rng, content)
    path = folder / "request.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    argv = [*originals.weights, *SAMPLING, "--save_file", str(folder / "out"), "--input_json", str(path)]
    return Case(
        what, ("request.json", "bbox", "audio_type", "--mode", "cond_audio", "a.flac", "Person"), lambda: infer.main(argv)
    )


def command_line(rng, folder, originals, begun):
    valid = {
        "--image": str(originals.folder / "a.png"), "--audio": str(originals.folder / "a.wav"),
        "--save_file": str(folder / "out"), "--mode": "streaming", "--frame_num": "5", "--motion_frame": "1",
        "--sample_steps": "1",
    }  # fmt: skip
    known = [action.option_strings[0] for action in flags.parser("infer.py")._actions if action.option_strings]
    changed = rng.sample([flag for flag in known if flag not in ("-h", "--help")], rng.choice((1, 1, 2)))
    values = [str(value) for value in ODD_VALUES if "\0" not in str(value) and str(value) != "/dev/zero"]
    given = valid | {flag: rng.choice(values) for flag in changed}
    argv = [*originals.weights, *(part for flag, value in given.items() for part in (flag, value))]
    values = [given[flag] for flag in changed]
    names = (*changed, *(flag.strip("-") for flag in changed), *values, *(ascii(value)[1:-1] for value in values))
    names = (*names, "--image", "--audio")
    return Case(f"{ {flag: given[flag][:50] for flag in changed} }", names, lambda: infer.main(argv))


def _read(argv: list[str], what: str) -> int:
    """Opens weights and reads a part of them, as a run does."""

    def work() -> None:
        args = flags.parser("infer.py").parse_args(argv)
        weights = infer.open_weights(args)
        if what == "tokenizer":
            load_tokenizer(weights.tokenizer, weights.preset.networks.umt5.vocabulary)
        elif what != "preset":
            weights.read(what, make_mesh(heads=weights.preset.networks.dit.num_heads), jnp.float32)
        raise Accepted

    return run_command("infer.py", work, "stopped")


def official_weights(rng, folder, originals, begun):
    name = rng.choice(list(FILES))
    shutil.copytree(originals.official, folder / "checkpoint")
    what, path = _damaged_copy(rng, originals.official / name, folder / "checkpoint" / Path(name).parent)
    argv = [part.replace(str(originals.official), str(folder / "checkpoint")) for part in originals.weights]
    names = (path.name, path.parent.name)  # of sharded files the message names the folder or the index
    return Case(what, names, lambda: _read(argv, FILES[name]))


def converted_weights(rng, folder, originals, begun):
    files = sorted(path.relative_to(originals.converted) for path in originals.converted.rglob("*") if path.is_file())
    name = rng.choice(files if rng.random() < 0.5 else [file for file in files if "zarr" not in str(file)])
    copied = originals.folder / "tiny"
    if not copied.exists():  # hundreds of files: the case before is mended instead
        shutil.copytree(originals.converted, copied)
    for damaged in originals.damaged:
        shutil.copyfile(originals.converted / damaged, copied / damaged)
    originals.damaged[:] = [name]
    what, path = _damaged_copy(rng, originals.converted / name, copied / name.parent)
    network = next((part for part in ("dit", "vae", "umt5", "clip", "wav2vec2") if part in str(name)), "wav2vec2")
    network = "tokenizer" if "tokenizer" in path.name else network
    return Case(what.replace(path.name, str(name)), ("tiny",), lambda: _read(["--checkpoint", str(copied)], network))


def lora(rng, folder, originals, begun):
    path = folder / "lora.safetensors"
    if rng.random() < 0.4:
        what, path = _damaged_copy(rng, originals.lora, folder)
    else:
        tensors = load_file(originals.lora)
        key = rng.choice(sorted(tensors))
        if rng.random() < 0.3:
            what = f"{key} renamed"
            tensors[rng.choice(["x", key + ".x", key.replace("blocks.0", "blocks.99")])] = tensors.pop(key)
        else:
            what, tensors[key] = damage_array(rng, tensors[key])
        save_file(tensors, path)
    scale = rng.choice(["1.0", "1.0", "nan", "1e39", "-inf", "0"])
    argv = [*originals.weights, "--lora_dir", str(path), "--lora_scale", scale]
    return Case(f"{what}, scale {scale}", (path.name, "--lora_scale"), lambda: _read(argv, "dit"))


def resume_folder(rng, folder, originals, begun):
    source, argv = begun
    shutil.copytree(source, folder, dirs_exist_ok=True)
    name = rng.choice(("out.resume/state.npz", "out.resume/state.npz", "out.mp4", "out.npy"))
    if name.endswith("npz") and rng.random() < 0.6:
        with np.load(folder / name) as file:
            arrays = dict(file)
        key = rng.choice(sorted(arrays))
        if key == "journal":
            what, text = damage_json(rng, json.loads(arrays[key].tobytes()))
            arrays[key] = np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
        else:
            what, arrays[key] = damage_array(rng, arrays[key])
        np.savez(folder / name, **arrays)
        what = f"{key}: {what}"
    else:
        what, _ = _damaged_copy(rng, folder / name, (folder / name).parent)
    argv = [*argv, "--save_file", str(folder / "out"), "--save_frames", str(folder / "out.npy")]
    return Case(f"{name}: {what}", ("out.resume", "out.mp4", "out.npy"), lambda: infer.main(argv))


def dataset(rng, folder, originals, begun):
    shutil.copytree(originals.dataset, folder / "data")
    files = sorted(path for path in (folder / "data").rglob("*") if path.is_file())
    path = rng.choice([*files, folder / "data" / "dataset.json", folder / "data" / "dataset.json"])
    if path.name == "dataset.json" and rng.random() < 0.6:
        what, text = damage_json(rng, json.loads(path.read_text()))
        path.unlink()
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    else:
        what, _ = _damaged_copy(rng, path, path.parent)

    def work() -> None:
        opened = records.open_dataset(folder / "data")
        records.null_prompts(opened)
        for bucket in opened.buckets:
            clips = records.Records(opened, bucket)
            for clip in (clips[i] for i in range(len(clips))):
                for value in clip:
                    np.asarray(value)
        raise Accepted

    return Case(f"{path.name}: {what}", (path.name, "data"), lambda: run_command("train.py", work, "stopped"))


KINDS = (media, request_json, command_line, official_weights, converted_weights, lora, resume_folder, dataset)


# -- what becomes of them ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def hung(*_: object) -> None:
        raise TimeoutError(f"still at it after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _complaint(case: Case, folder: Path, capsys) -> str:
    """What is wrong with how the case ends; '' if nothing is."""
    before = _contents(folder)
    capsys.readouterr()
    sys.stderr.reconfigure(errors="backslashreplace")  # as Python's own is
    try:
        with _alarm(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of libraries, of which run_command is not in charge
            status = case.run()
    except Accepted:
        return ""
    except SystemExit as stopped:  # argparse
        status = stopped.code
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    said = "\n".join(line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: "))
    if status != 2:
        return f"status {status}: {said}"
    if not any(name in said for name in case.names):
        return f"the message names none of {case.names}: {said}"
    if "Traceback" in said or len(said) > 3000:
        return f"no sentence: {said[:3000]}"
    after = _contents(folder)
    if changed := [name for name in before | after if before.get(name) != after.get(name)]:
        return f"changed, or left behind: {changed}"
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_damaged_inputs_are_used_or_refused_in_a_sentence(
    kind, count, originals, opened, begun, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(dub, "_generate", _read_to_the_end)
    if kind in (media, request_json, resume_folder):
        monkeypatch.setattr(infer, "open_weights", lambda args: opened)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    complaints = []
    for number in range(count):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)  # a relative name on the command line lies there
        case = kind(random.Random(f"{kind.__name__} {number}"), folder, originals, begun)
        if complaint := _complaint(case, folder, capsys):
            complaints.append(f"{kind.__name__} {number}: {case.what}\n    {complaint}")
        shutil.rmtree(folder)
    assert not complaints, f"{len(complaints)} of {count}:\n" + "\n".join(complaints)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MEGABYTES * 1000
