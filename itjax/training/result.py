"""The weights of a training run: the initial weights with the trained ones substituted, and export as official files.

If the run keeps averaged weights, these are used. Values are cast to the dtype of the initial checkpoint
(bfloat16 if that is float8).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from etils import epath

from itjax.config import Preset
from itjax.disk import atomic_path, check_absent, check_output, output_errors
from itjax.errors import UserError
from itjax.input_files import read_json
from itjax.progress import SILENT, Progress
from itjax.training import run_folder
from itjax.training.checkpoints import FOLDER, last_step
from itjax.weights import store
from itjax.weights.convert import Report, audio_names, nbytes_of, write_dit_audio, write_dit_base
from itjax.weights.identity import identity_of
from itjax.weights.lazy import LazyTensor, changed_dtype
from itjax.weights.load import split_into_torch, torch_view
from itjax.weights.lora import Lora, LoraFile, open_loras, with_deltas
from itjax.weights.mapping import LINEAR, Source, sources
from itjax.weights.sources import Weights, open_converted, preset_of, replace_dit
from itjax.weights.specs import NetworkSpec, network_specs
from itjax.weights.torch_files import TensorFiles
from itjax.weights.torch_writer import write_safetensors
from itjax.weights.verify import verify_arrays, verify_checkpoint

LORA_FILE = "lora.safetensors"
PREFIX = "diffusion_model."  # of tensor names in a LoRA file


class Result(NamedTuple):
    """A checkpoint of a run.

    `base`: the initial weights. `parts`: `TrainedParameters.parts`. `arrays`: the trained arrays by their path in the DiT.
    """

    folder: Path
    base: Path
    parts: str
    arrays: dict[str, LazyTensor]


def open_weights(directory: str | Path, loras: Sequence[LoraFile] = ()) -> Weights:
    """Opens a folder made by convert_weights.py, a training run (its last checkpoint), or RUN/checkpoints/STEP.

    Args:
        directory: the folder.
        loras: LoRA files to add to the DiT as it is read.

    Raises:
        UserError: If it is none of these or is damaged, or a LoRA does not fit.
    """
    folder = Path(directory)
    if not is_result(folder):
        return open_converted(folder, loras)
    result = open_result(folder)
    base = open_weights(result.base, [])
    spec = network_specs(base.preset.networks)["dit"]
    identity = f"{base.identity},{identity_of(TensorFiles(result.arrays), loras)}"
    return replace_dit(base, _dit(folder, spec, loras), identity)


def verify(directory: Path, progress: Progress = SILENT) -> None:
    """Compares a folder that `open_weights` accepts with its checksums; for a training run, also its initial weights.

    Raises:
        UserError: If something is missing or differs from what was written.
    """
    if not is_result(directory):
        return verify_checkpoint(directory, progress)
    found = open_result(directory)
    verify_arrays(found.arrays, progress)
    return verify(found.base, progress)


def export(directory: Path, output: Path, progress: Progress = SILENT) -> list[Path]:
    """Writes the trained weights of a run as official files into the folder `output`; returns their paths.

    Audio parts are written as InfiniteTalk's file, the full DiT as that file and Wan's shards, LoRA as one file for scale 1.

    Raises:
        UserError: If `output` exists, or the run's checkpoint cannot be read.
        OutputError: If a file cannot be written; no partial output remains.
    """
    result, target = open_result(directory), Path(output).absolute()
    check_absent(target)
    spec = network_specs(preset_at(result.base).networks)["dit"]
    view = _dit(directory, spec, [])
    if result.parts == "lora":
        view = TensorFiles(_lora(result, spec, view))
    elif result.parts == "audio":
        view = TensorFiles({name: view.tensors[name] for name in audio_names(spec)})
    nbytes = nbytes_of(view.tensors)
    check_output(target, nbytes)
    report = Report(nbytes, progress)
    with atomic_path(target) as folder, report.bar:
        with output_errors(target):
            folder.mkdir()
        if result.parts == "lora":
            write_safetensors(folder / LORA_FILE, report.watched(view.tensors))
            report.finished("lora", nbytes)
        else:
            write_dit_audio(spec, view, folder, report)
        if result.parts == "full":
            write_dit_base(spec, view, folder, report)
    return sorted(path for path in target.rglob("*") if path.is_file())


def open_result(directory: Path) -> Result:
    """Opens a run's last complete checkpoint, or the one of the step that `directory` ends in.

    Raises:
        UserError: If there is none, or the initial weights are missing.
    """
    run, step = _run_and_step(directory)
    path = run / run_folder.FILE
    try:
        content = read_json(path)
        base, trained = Path(content["checkpoint"]), content["training"]["trained"]["parts"]
        checkpoints = content.get("checkpoints", str(run / FOLDER))
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): it records the initial weights of {run}") from error
    if not base.is_dir():
        raise UserError(f"the initial weights of {run} are missing from {base}: restore them, or correct the path in {path}")
    if "://" in checkpoints:
        raise UserError(
            f"{run}: its checkpoints are in {checkpoints}. Copy that folder to a local disk and specify the copy."
        )
    if step is None:
        step = last_step(epath.Path(checkpoints))
    if step is None:
        raise UserError(f"{run} has no checkpoint yet in {checkpoints}")
    folder = Path(checkpoints) / str(step) / "state"
    if not folder.is_dir():
        raise UserError(f"{folder.parent} is not a checkpoint of a run: it has no folder {folder.name}")
    arrays = store.open_checkpoint(folder).tensors
    name = "ema" if any(path.startswith("ema/") for path in arrays) else "trainable"
    return Result(folder, base, trained, {p.removeprefix(f"{name}/"): x for p, x in arrays.items() if p.startswith(name)})


def is_result(directory: Path) -> bool:
    """Whether the folder is a training run or a checkpoint of one."""
    run, _ = _run_and_step(directory)
    return ((run / FOLDER).is_dir() and (run / run_folder.FILE).is_file()) or run_folder.is_run_folder(run)


def _run_and_step(directory: Path) -> tuple[Path, int | None]:
    directory = Path(directory).absolute()
    if directory.name.isdecimal():
        for run in (
            directory.parent.parent,
            directory.parent,
        ):  # RUN/checkpoints/STEP, or STEP in a separate checkpoint folder
            if (run / run_folder.FILE).is_file():
                return run, int(directory.name)
    return directory, None


def preset_at(directory: Path) -> Preset:
    """The preset of the networks in a folder that `open_weights` accepts.

    Raises:
        UserError: If it is not such a folder.
    """
    return preset_at(open_result(directory).base) if is_result(directory) else preset_of(directory)


def _dit(directory: Path, spec: NetworkSpec, loras: Sequence[LoraFile]) -> TensorFiles:
    """The DiT's tensors by torch name; for a run, the initial ones with the trained ones substituted."""
    if not is_result(directory):
        return torch_view(spec, store.open_checkpoint(directory), "dit")
    result = open_result(directory)
    base = _dit(result.base, spec, [])
    if result.parts == "lora":
        run_lora = Lora(LoraFile(result.folder), TensorFiles(_lora(result, spec, base)))
        return with_deltas(base, [run_lora, *open_loras(loras)])
    trained: dict[str, LazyTensor] = {}
    for source in sources(spec.table, spec.abstract):
        if source.path in result.arrays:
            trained |= split_into_torch(source, result.arrays[source.path])
    for name, tensor in trained.items():
        trained[name] = tensor.astype(changed_dtype(base.dtype(name)))
    return with_deltas(TensorFiles(base.tensors | trained), open_loras(loras))


def _lora(result: Result, spec: NetworkSpec, base: TensorFiles) -> dict[str, LazyTensor]:
    """The low-rank updates by tensor name in a LoRA file."""
    tensors: dict[str, LazyTensor] = {}
    for source in sources(spec.table, spec.abstract):
        for suffix in ("lora_down", "lora_up"):
            path = source.path.removesuffix("kernel") + suffix
            if not source.path.endswith("/kernel") or path not in result.arrays:
                continue
            stored = result.arrays[path]
            names = tuple(f"{PREFIX}{name.removesuffix('weight')}{suffix}.weight" for name in source.names)
            update = split_into_torch(Source(path, names, LINEAR, True, stored.shape), stored)
            dtype = changed_dtype(base.dtype(source.names[0]))
            tensors |= {name: tensor.astype(dtype) for name, tensor in update.items()}
    return tensors
