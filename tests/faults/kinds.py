"""The kinds of damaged inputs: each draws a case from a generator of random numbers."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from damage import ODD_VALUES, damage_array, damage_bytes, damage_json
from safetensors.numpy import load_file, save_file

from itjax import records
from itjax.commands import flags, infer
from itjax.conditioning.prompt import load_tokenizer
from itjax.parallel.sharding import make_mesh
from itjax.terminal import run_command

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
