"""`itjax assemble`: puts separately trained networks and a new DiT together into one checkpoint.

    python -m itjax.commands.assemble --speech_encoder runs/speech --vae runs/vae --encoders runs/encoders --output small

The checkpoint is then trained further by `train.py small --checkpoint small`. What is not given has initial values.
"""

import argparse
import sys
from pathlib import Path

import jax

from itjax import configs
from itjax.flag_types import not_negative
from itjax.pipeline.process import keep_compiled_programs
from itjax.terminal import Terminal, run_command
from itjax.training.assembly import assemble

NETWORKS = {"speech_encoder": ("wav2vec2",), "vae": ("vae",), "encoders": ("clip", "umt5")}


def main(argv: list[str] | None = None, program: str = "python -m itjax.commands.assemble") -> int:
    """Returns the exit status: 0 for success, 2 for a user error, 3 if a file cannot be written, 130 if interrupted."""
    args = _parser(program).parse_args(argv)
    return run_command(program, lambda: write(args), "stopped; nothing was written")


def write(args: argparse.Namespace) -> None:
    """Writes the checkpoint that the flags describe.

    Raises:
        UserError: As `assemble`.
    """
    folders = {flag: getattr(args, flag) for flag in NETWORKS}
    given = {network: folder for flag, folder in folders.items() if folder for network in NETWORKS[flag]}
    assemble(configs.named(args.preset), given, args.output, args.seed, Terminal())
    print(f"wrote {args.output}")


def _parser(program: str) -> argparse.ArgumentParser:
    description, _, more = (__doc__ or "").split(": ", 1)[-1].partition("\n\n")
    parser = argparse.ArgumentParser(
        program, description=description, epilog=more, formatter_class=argparse.RawTextHelpFormatter
    )
    for flag, of in (
        ("speech_encoder", "itjax.training.speech_encoder"),
        ("vae", "itjax.training.vae"),
        ("encoders", "itjax.training.contrastive"),
    ):
        parser.add_argument(f"--{flag}", type=Path, metavar="DIR", help=f"run of {of}, or its checkpoint")
    parser.add_argument("--preset", default="small", help="sizes of the rest, the DiT's above all (default %(default)s)")
    parser.add_argument("--seed", type=not_negative, default=0, help="random seed of initial values (default %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to create")
    return parser


def run(argv: list[str] | None = None, program: str = "python -m itjax.commands.assemble") -> int:
    """Runs `main` on the CPU: reserving an accelerator would be pointless."""
    jax.config.update("jax_platforms", "cpu")
    keep_compiled_programs()
    return main(argv, program)


if __name__ == "__main__":
    sys.exit(run())
