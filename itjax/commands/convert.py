r"""`itjax convert`, `python convert_weights.py`: converts official files to a checkpoint, or back with --to-torch.

    python convert_weights.py --ckpt_dir Wan2.1-I2V-14B-480P --wav2vec_dir chinese-wav2vec2-base \
        --infinitetalk_dir InfiniteTalk/single/infinitetalk.safetensors --output checkpoint
    python convert_weights.py --to-torch --checkpoint checkpoint --output official

For a training run (--checkpoint RUN, or RUN/checkpoints/STEP), --to-torch writes only what was trained: the audio parts, the
LoRA, or the whole DiT.
"""

import argparse
import ctypes
import resource
import sys
import time
from pathlib import Path

import jax

from itjax import configs
from itjax.commands import flags, from_flags
from itjax.config import to_json
from itjax.disk import check_absent
from itjax.terminal import DONE, REFUSED, WRONG, Terminal, run_command
from itjax.training import result
from itjax.weights.convert import to_checkpoint, to_official
from itjax.weights.lora import with_loras
from itjax.weights.official import check_all, companion_files, open_official
from itjax.weights.sources import preset_of
from itjax.weights.specs import network_specs
from itjax.weights.verify import verify_checkpoint, verify_official


def main(argv: list[str] | None = None, program: str = "convert_weights.py") -> int:
    """Returns the exit status: 0 for success, 2 for a user error or a full disk, 130 if interrupted, 143 after SIGTERM."""
    args = arguments(argv, program)
    status = run_command(program, lambda: write(args), "stopped; nothing was written")
    if status == DONE and args.verify and not args.to_torch:
        verify = lambda: verify_checkpoint(args.output, Terminal())
        status = run_command(program, verify, f"stopped; {args.output} is complete, but was not verified to its end")
    return WRONG if status == REFUSED else status  # a full disk leaves nothing behind here: an error like any other


def write(args: argparse.Namespace) -> None:
    """Converts in the direction given by the flags."""
    started = time.perf_counter()
    check_absent(args.output)  # before --verify reads all files
    export(args) if args.to_torch else convert(args)
    print(f"wrote {args.output} in {time.perf_counter() - started:.1f} s; peak host memory {peak_memory() / 1e9:.2f} GB")


def arguments(argv: list[str] | None, program: str) -> argparse.Namespace:
    """Parses the flags; exits if they contradict each other."""
    parser = argparse.ArgumentParser(program, description=(__doc__ or "").split(": ", 1)[-1].split("\n")[0])
    flags.add_official_files(parser.add_argument_group("from official files"))
    back = parser.add_argument_group("back to official files")
    back.add_argument("--to-torch", action="store_true", help="write official files from --checkpoint")
    back.add_argument("--checkpoint", type=Path, help="folder written by this program, or a training run")
    parser.add_argument("--output", type=Path, required=True, help="folder to create")
    args = parser.parse_args(argv)
    infinitetalk = ["infinitetalk_dir"] if args.dit_path is None else []
    needed = ["checkpoint"] if args.to_torch else ["ckpt_dir", "wav2vec_dir", *infinitetalk]
    missing = [f"--{flag}" for flag in needed if getattr(args, flag) is None]
    if missing:
        parser.error(f"missing: {', '.join(missing)}")
    if args.to_torch and args.lora_dir:
        parser.error("--lora_dir applies only when converting from official files, not with --to-torch")
    return args


def convert(args: argparse.Namespace) -> None:
    """Converts official files to a checkpoint, merging LoRA if given."""
    loras = from_flags.loras_of(args)
    files = open_official(args.ckpt_dir, args.wav2vec_dir, args.infinitetalk_dir, args.dit_path)
    preset = configs.named(args.preset) if args.preset else configs.matching(args.ckpt_dir)
    specs = network_specs(preset.networks)
    check_all(specs, files)
    if args.verify:
        verify_official(files.values(), args.lora_dir, Terminal())
    files["dit"] = with_loras(files["dit"], loras)
    companions = companion_files(args.ckpt_dir, args.wav2vec_dir)
    to_checkpoint(specs, files, to_json(preset), companions, args.output, Terminal())


def export(args: argparse.Namespace) -> None:
    """Converts a checkpoint to official files; for a training run, only those with trained weights."""
    if args.verify:
        result.verify(args.checkpoint, Terminal())
    if result.is_result(args.checkpoint):
        for path in result.export(args.checkpoint, args.output, Terminal()):
            print(path)
        return
    to_official(network_specs(preset_of(args.checkpoint).networks), args.checkpoint, args.output, Terminal())


def peak_memory() -> int:
    """Peak memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def prepare_process() -> None:
    """Selects the CPU, since reserving an accelerator would be pointless, and a single heap for all threads.

    By default, glibc gives each writing thread its own heap, and these heaps retain 0.4 GB of freed memory.
    """
    jax.config.update("jax_platforms", "cpu")
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-8, 1)  # M_ARENA_MAX


def run(argv: list[str] | None = None, program: str = "convert_weights.py") -> int:
    """Runs `main` with process settings that reduce memory use."""
    prepare_process()
    return main(argv, program)
