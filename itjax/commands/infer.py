"""`itjax infer`, `python infer.py`: generates a talking video. See `--help`, or README.md."""

import argparse
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jax.sharding import Mesh

import itjax
from itjax import configs, small
from itjax.commands import flags, from_flags
from itjax.errors import UserError, flag_names
from itjax.parallel.sharding import make_mesh
from itjax.pipeline.dub import dub
from itjax.pipeline.process import keep_compiled_programs
from itjax.terminal import Terminal, run_command
from itjax.training import result
from itjax.weights.lora import LoraFile
from itjax.weights.official import open_official, tokenizer_folder
from itjax.weights.sources import Weights, open_files
from itjax.weights.verify import verify_official


def main(argv: list[str] | None = None, program: str = "infer.py") -> int:
    """Returns the exit status.

    0 for success, 2 for a user error, 3 if a file cannot be written, the devices' memory is full or frames are not finite,
    130 if interrupted, 143 after SIGTERM. In every case, the chunks finished so far stay saved.
    """
    args = flags.parser(program).parse_args(argv)
    if os.environ.get("TORCHELASTIC_RUN_ID") and os.environ.get("RANK", "0") != "0":
        return 0  # started by torchrun, as in the official example for eight GPUs: a single process drives all devices
    return run_command(program, lambda: make_video(args), "stopped; finished chunks are saved, continue with --resume")


def make_video(args: argparse.Namespace) -> None:
    """Generates the video described by the flags.

    Raises:
        UserError: if a flag, an input file or the weights are invalid.
    """
    flags.warn_without_effect(args)
    from_flags.check_devices(args)
    check_one_process(os.environ)
    request = from_flags.request_of(args)
    weights = open_weights(args)
    with flag_names(from_flags.FLAGS):
        settings = from_flags.settings_of(args, weights.preset, request)
        if uses_shipped(args):
            say_what_small_knows(request.source)
        keep_compiled_programs()
        dub(request, settings, weights, mesh_of(args, weights.preset.networks.dit.num_heads), Terminal())


def check_one_process(environment: Mapping[str, str]) -> None:
    """Checks that no others were started with this process: each would make the video anew, or wait for the others.

    Raises:
        UserError: if there are others, by what Slurm, MPI or a TPU slice tells.
    """
    counts = {name: environment.get(name, "") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")}
    started = [f"{name}={count}" for name, count in counts.items() if count.isdecimal() and int(count) > 1]
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if len(hosts) > 1 and not any(" " in host for host in hosts) and environment.get("TPU_PROCESS_BOUNDS") != "1,1,1":
        started.append(
            f"TPU_WORKER_HOSTNAMES={','.join(hosts)}; TPU_PROCESS_BOUNDS=1,1,1 leaves it to one of these machines"
        )
    if started:
        raise UserError(
            f"several processes were started together ({started[0]}), but a video is made by one, which drives all devices "
            "of a machine. Start one process for each video."
        )


def open_weights(args: argparse.Namespace) -> Weights:
    """Opens the converted checkpoint, or the official files.

    Raises:
        UserError: if neither or both are specified, or the files are missing, damaged, or of another preset.
    """
    if args.task != flags.TASK:
        raise UserError(f"--task {args.task}: only {flags.TASK} is supported")
    loras = from_flags.loras_of(args)
    if args.checkpoint is not None:
        return open_converted(args, loras)
    if uses_shipped(args):
        return open_shipped(args.verify, loras)
    needed = {"--ckpt_dir": args.ckpt_dir, "--wav2vec_dir": args.wav2vec_dir}
    if args.dit_path is None:
        needed["--infinitetalk_dir"] = args.infinitetalk_dir
    named = configs.named(args.preset) if args.preset else None
    missing = [flag for flag, value in needed.items() if value is None]
    if missing:
        raise UserError(
            f"no weights: specify --checkpoint DIR, the official files (missing: {', '.join(missing)}), or --preset small"
        )
    preset = named or configs.matching(args.ckpt_dir)
    files = open_official(args.ckpt_dir, args.wav2vec_dir, args.infinitetalk_dir, args.dit_path)
    if args.verify:
        verify_official(files.values(), args.lora_dir, Terminal())
    return open_files(preset, files, tokenizer_folder(args.ckpt_dir), loras)


def open_converted(args: argparse.Namespace, loras: Sequence[LoraFile]) -> Weights:
    """Opens the weights of `--checkpoint`.

    Raises:
        UserError: if flags name other weights, too, or another preset, or the files are missing or damaged.
    """
    if given := official_flags(args):
        raise UserError(f"--checkpoint already names all weights: leave out either it or {', '.join(given)}")
    if args.verify:
        result.verify(args.checkpoint, Terminal())
    weights = result.open_weights(args.checkpoint, loras)
    if args.preset not in (None, weights.preset.name):
        raise UserError(f"--preset {args.preset}: --checkpoint {args.checkpoint} is of preset {weights.preset.name}")
    return weights


def uses_shipped(args: argparse.Namespace) -> bool:
    """Whether the flags name a preset whose weights come with the package, and no other weights."""
    return args.preset == small.PRESET and args.checkpoint is None and not official_flags(args)


def official_flags(args: argparse.Namespace) -> list[str]:
    """The flags that name official files, of those given."""
    names = "ckpt_dir", "wav2vec_dir", "infinitetalk_dir", "dit_path"
    return [f"--{name}" for name in names if getattr(args, name) is not None]


def open_shipped(verify: bool, loras: Sequence[LoraFile]) -> Weights:
    """Opens the weights that come with the package. Their default settings are those of the preset as it is now.

    Raises:
        UserError: if this installation lacks them, or they are damaged.
    """
    folder, preset = small.weights_folder(), configs.named(small.PRESET)
    if verify:
        result.verify(folder, Terminal())
    weights = result.open_weights(folder, loras)
    return weights._replace(preset=replace(weights.preset, sizes=preset.sizes, sampler=preset.sampler))


def say_what_small_knows(source: str | Path) -> None:
    """Says that only drawn people can be expected to work, unless the source comes with the package.

    Whether a picture is drawn cannot be told for sure from its pixels, so the line does not claim to know it.
    """
    package = Path(itjax.__file__).parent
    if not Path(source).resolve().is_relative_to(package.resolve()):
        print(
            "note: the small model has only seen people as `itjax draw` draws them; any other picture comes out wrong",
            file=sys.stderr,
        )


def mesh_of(args: argparse.Namespace, heads: int) -> Mesh:
    """The mesh given by the flags; if it does not match the devices, warns and chooses one that does."""
    try:
        mesh = make_mesh(args.ulysses_size, args.ring_size, heads=heads)
        if mesh.shape["data"] > 1:  # a single video has no batch to split, only two or three guidance branches
            raise UserError(f"--ulysses_size x --ring_size leaves devices idle: the product must be {mesh.size}")
        return mesh
    except UserError as error:
        warnings.warn(f"{error}. Splitting automatically instead (this changes the speed, not the video)", stacklevel=2)
        return make_mesh(heads=heads)
