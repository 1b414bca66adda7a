"""`itjax infer`, `python infer.py`: makes a talking video. See `--help`, or README.md."""

import argparse
import os
import warnings

from jax.sharding import Mesh

from itjax import configs
from itjax.commands import flags
from itjax.errors import UserError
from itjax.parallel.sharding import make_mesh
from itjax.pipeline.dub import dub
from itjax.pipeline.process import keep_compiled_programs
from itjax.terminal import Terminal, run_command
from itjax.training import result
from itjax.weights.sources import Weights, open_files


def main(argv: list[str] | None = None, program: str = "infer.py") -> int:
    """Exit status: 0 done, 2 something to put right, 3 the result could not be written (what was finished is kept)."""
    args = flags.parser(program).parse_args(argv)
    if os.environ.get("TORCHELASTIC_RUN_ID") and os.environ.get("RANK", "0") != "0":
        return 0  # started by torchrun, as the official example with eight GPUs: one process drives all devices
    return run_command(program, lambda: make_video(args), "stopped; finished chunks are kept, go on with --resume")


def make_video(args: argparse.Namespace) -> None:
    """The video that the flags ask for.

    Raises:
        UserError: where they do not fit together, or anything is not as it must be.
    """
    flags.warn_without_effect(args)
    request = flags.request_of(args)
    weights = open_weights(args)
    settings = flags.settings_of(args, weights.preset, request)
    keep_compiled_programs()
    dub(request, settings, weights, mesh_of(args, weights.preset.networks.dit.num_heads), Terminal())


def open_weights(args: argparse.Namespace) -> Weights:
    """The converted checkpoint, or the official files.

    Raises:
        UserError: where neither is named, or something is wrong with them.
    """
    if args.task != flags.TASK:
        raise UserError(f"--task {args.task}: only {flags.TASK}")
    loras = flags.loras_of(args)
    if args.checkpoint is not None:
        return result.open_weights(args.checkpoint, loras)
    needed = {"--ckpt_dir": args.ckpt_dir, "--wav2vec_dir": args.wav2vec_dir}
    if args.dit_path is None:
        needed["--infinitetalk_dir"] = args.infinitetalk_dir
    missing = [flag for flag, value in needed.items() if value is None]
    if missing:
        raise UserError(f"no weights: give --checkpoint DIR, or the official files ({', '.join(missing)} missing)")
    preset = configs.named(args.preset) if args.preset else configs.matching(args.ckpt_dir)
    return open_files(preset, args.ckpt_dir, args.wav2vec_dir, args.infinitetalk_dir, args.dit_path, loras)


def mesh_of(args: argparse.Namespace, heads: int) -> Mesh:
    """The mesh that the flags ask for; where it does not fit the devices, with a warning, one that does."""
    try:
        mesh = make_mesh(args.ulysses_size, args.ring_size, heads=heads)
        if mesh.shape["data"] > 1:  # one video has no batch to split: its branches are two or three
            raise UserError(f"--ulysses_size x --ring_size leaves devices idle: there are {mesh.size}")
        return mesh
    except UserError as error:
        warnings.warn(f"{error}: split another way (the speed changes, the video does not)", stacklevel=2)
        return make_mesh(heads=heads)
