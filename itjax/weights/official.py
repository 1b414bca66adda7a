"""The contents of a set of official files: the files of each network, and the small companion files next to them."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from itjax.errors import UserError
from itjax.weights.dit_files import official_tensors
from itjax.weights.lazy import LazyTensor
from itjax.weights.mapping import torch_shapes
from itjax.weights.specs import NetworkSpec
from itjax.weights.tables import wav2vec2 as wav2vec2_table
from itjax.weights.torch_files import TensorFiles, check_names, open_tensors

# The published names of the folders and of the InfiniteTalk file, under one parent
WAN = "Wan2.1-I2V-14B-480P"
WAV2VEC2 = "chinese-wav2vec2-base"
INFINITETALK = "InfiniteTalk/single/infinitetalk.safetensors"

AUDIO_ADAPTER = "audio_proj."  # before names that only the InfiniteTalk file has, or a whole DiT

# In the folder --ckpt_dir
DIT_STEM = "diffusion_pytorch_model"
VAE_FILE = "Wan2.1_VAE.pth"
UMT5_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
CLIP_FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
TOKENIZER = "google/umt5-xxl"

# In the folder --wav2vec_dir
WAV2VEC2_FILE = "model.safetensors"
WAV2VEC2_PICKLE = "pytorch_model.bin"

SETTINGS = ("config.json", "preprocessor_config.json")

Opener = Callable[[], Mapping[str, LazyTensor]]


def open_official(
    ckpt_dir: str | Path, wav2vec_dir: str | Path, infinitetalk: str | Path | None, dit_path: str | Path | None = None
) -> dict[str, TensorFiles]:
    """Opens the tensors of "dit", "vae", "umt5", "clip" and "wav2vec2" by their published names.

    The DiT is the Wan shards plus the `infinitetalk` file. The single file `dit_path` replaces the shards or, if it has the
    audio parts, both.

    Raises:
        UserError: if files are missing or cannot be read; the message names all of them and their flags.
    """
    opened: dict[str, dict[str, LazyTensor]] = {}
    problems = []
    for network, flag, opener in _openers(Path(ckpt_dir), Path(wav2vec_dir), infinitetalk, dit_path):
        tensors = opened.setdefault(network, {})
        try:
            found = opener()
        except UserError as error:
            problems.append(f"{flag}: {error}")
            continue
        for name in sorted(found.keys() & tensors.keys())[:1]:
            problems.append(f"{flag}: {found[name].file} has {name}, and so does {tensors[name].file}")
        tensors |= found
    if not (tokenizer_folder(Path(ckpt_dir)) / "tokenizer.json").is_file() and Path(ckpt_dir).is_dir():
        problems.append(f"--ckpt_dir: {tokenizer_folder(Path(ckpt_dir)) / 'tokenizer.json'} does not exist")
    if problems:
        raise UserError("official files are missing or cannot be used:\n  " + "\n  ".join(dict.fromkeys(problems)))
    return {network: TensorFiles(tensors) for network, tensors in opened.items()}


def _openers(
    wan: Path, wav2vec2: Path, infinitetalk: str | Path | None, dit_path: str | Path | None
) -> Iterator[tuple[str, str, Opener]]:
    """Yields (network, flag, function that opens one of its files) for every file."""
    if dit_path is not None:
        yield "dit", "--dit_path", partial(_open_single, dit_path, infinitetalk)
    else:
        yield "dit", "--ckpt_dir", partial(_open_base, wan)
        yield "dit", "--infinitetalk_dir", partial(_open_infinitetalk, infinitetalk)
    for network, name in (("vae", VAE_FILE), ("umt5", UMT5_FILE), ("clip", CLIP_FILE)):
        yield network, "--ckpt_dir", partial(_open_in, wan, name)
    yield "wav2vec2", "--wav2vec_dir", partial(_open_wav2vec2, wav2vec2)


def _open_in(folder: Path, name: str) -> Mapping[str, LazyTensor]:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    return open_tensors(folder / name).tensors


def _open_base(wan: Path) -> Mapping[str, LazyTensor]:
    """The Wan shards listed in their index; without an index, all shards found (their tensor names are checked later)."""
    index = f"{DIT_STEM}.safetensors.index.json"
    shards = sorted(wan.glob(f"{DIT_STEM}*.safetensors"))
    if shards and not (wan / index).exists():
        return official_tensors(open_tensors(shards).tensors)
    return official_tensors(_open_in(wan, index))


def _open_single(path: str | Path, infinitetalk: str | Path | None) -> Mapping[str, LazyTensor]:
    """One file in place of the Wan shards, with the audio parts, which are in `infinitetalk` if not in the file itself."""
    tensors = official_tensors(open_tensors(path, key="state_dict").tensors)
    if not any(name.startswith(AUDIO_ADAPTER) for name in tensors):
        if infinitetalk is None:
            raise UserError(f"{path} has no audio parts ({AUDIO_ADAPTER}*): add them by --infinitetalk_dir")
        return {**tensors, **_open_infinitetalk(infinitetalk)}
    if infinitetalk is not None:  # usual in command lines of the official code, which does not look at it
        warnings.warn(f"--infinitetalk_dir {infinitetalk} is not used: {path} has the audio parts, too", stacklevel=2)
    return tensors


def _open_infinitetalk(path: str | Path | None) -> Mapping[str, LazyTensor]:
    if path is None:
        raise UserError("not given: pass the path of infinitetalk.safetensors")
    return official_tensors(open_tensors(path).tensors)


def _open_wav2vec2(folder: Path) -> Mapping[str, LazyTensor]:
    """By published names: files of other versions add a prefix to all names and use an older name for two tensors."""
    pickled = (folder / WAV2VEC2_PICKLE).exists() and not (folder / WAV2VEC2_FILE).exists()
    found = _open_in(folder, WAV2VEC2_PICKLE if pickled else WAV2VEC2_FILE)
    renamed = {wav2vec2_table.published_name(name): tensor for name, tensor in found.items()}
    if len(renamed) < len(found):
        raise UserError(f"{folder} contains tensors twice, with and without the prefix {wav2vec2_table.PREFIX!r}")
    return renamed


def check_all(specs: Mapping[str, NetworkSpec], files: Mapping[str, TensorFiles]) -> None:
    """Checks that the files contain the networks.

    Raises:
        UserError: if tensors are missing, unexpected or have a wrong shape; the message lists them per network.
    """
    problems = []
    for network, spec in specs.items():
        try:
            names = _file_names(files[network])
            check_names(torch_shapes(spec.table, spec.abstract), files[network], names, spec.is_unused)
        except UserError as error:
            problems.append(f"{network}: {error}")
    if problems:
        raise UserError("\n".join(problems))


def _file_names(files: TensorFiles) -> str:
    """The names of the files, abbreviated because there may be many shards."""
    paths = sorted({str(tensor.file) for tensor in files.tensors.values()})
    return " + ".join(paths[:3]) + (f" + {len(paths) - 3} more" if len(paths) > 3 else "")


def tokenizer_folder(wan: Path) -> Path:
    """Folder of UMT5's tokenizer in --ckpt_dir, or in the companion files of a converted checkpoint."""
    return wan / TOKENIZER


def companion_files(ckpt_dir: str | Path, wav2vec_dir: str | Path) -> dict[str, Path]:
    """{name in a converted checkpoint: file} of the settings and the tokenizer, which are needed to use the networks."""
    wan, wav2vec2 = Path(ckpt_dir), Path(wav2vec_dir)
    named = {name: wan / name for name in SETTINGS} | {f"{WAV2VEC2}/{name}": wav2vec2 / name for name in SETTINGS}
    named |= {f"{TOKENIZER}/{file.name}": file for file in sorted(tokenizer_folder(wan).glob("*"))}
    return {name: file for name, file in named.items() if file.is_file()}


def official_place(name: str) -> str:
    """Path of a companion file of a converted checkpoint within a set of official files."""
    return name if name.startswith(f"{WAV2VEC2}/") else f"{WAN}/{name}"
