"""Makes a talking video: `python infer.py --help`, or see README.md."""

import argparse
import os
import sys
import warnings

from jax.sharding import Mesh

import configs
from itjax import command_line
from itjax.errors import OutputError, UserError
from itjax.parallel.sharding import make_mesh
from itjax.pipeline.dub import dub
from itjax.pipeline.process import prepare_jax
from itjax.training import result
from itjax.weights.sources import Weights, open_files


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to put right, 3 the result could not be written (what was finished is kept)."""
    parser = command_line.parser()
    args = parser.parse_args(argv)
    if os.environ.get("TORCHELASTIC_RUN_ID") and os.environ.get("RANK", "0") != "0":
        return 0  # started by torchrun, as the official example with eight GPUs: one process drives all devices
    warnings.showwarning = _show_warning
    try:
        command_line.warn_without_effect(args)
        request = command_line.request_of(args)
        weights = open_weights(args)
        settings = command_line.settings_of(args, weights.preset, request)
        prepare_jax(str(settings.dtype))
        dub(request, settings, weights, mesh_of(args, weights.preset.networks.dit.num_heads))
    except OutputError as error:
        print(f"infer.py: {error}", file=sys.stderr)
        return 3
    except UserError as error:
        print(f"infer.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninfer.py: stopped; finished chunks are kept, go on with --resume", file=sys.stderr)
        return 130
    return 0


def open_weights(args: argparse.Namespace) -> Weights:
    """The converted checkpoint, or the official files; a UserError where neither is named, or something is wrong."""
    if args.task != command_line.TASK:
        raise UserError(f"--task {args.task}: only {command_line.TASK}")
    loras = command_line.loras_of(args)
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


def _show_warning(message, category, *_, **__) -> None:
    # ours are for the user: no file and line of ours with them
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
