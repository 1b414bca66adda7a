"""`itjax pack`: packs a finished training run, or a checkpoint, into few files in bfloat16, to come with the package.

    python -m itjax.commands.pack runs/small --card MODEL_CARD.md card.json --output itjax/small/weights

Averaged weights are used where the run keeps them. The sampling settings in it are those of the preset of the same name.
With --vae the VAE is that of another run: one that was refined (`python -m itjax.training.vae --start`).
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from itjax import configs
from itjax.config import to_json
from itjax.disk import check_absent
from itjax.errors import UserError
from itjax.parallel.sharding import make_mesh
from itjax.terminal import run_command
from itjax.training.result import open_weights
from itjax.training.stored import checkpoint_in
from itjax.weights import store
from itjax.weights.official import TOKENIZER
from itjax.weights.packed import save_packed
from itjax.weights.specs import network_specs


def main(argv: list[str] | None = None, program: str = "python -m itjax.commands.pack") -> int:
    """Returns the exit status: 0 for success, 2 for a user error, 3 if a file cannot be written, 130 if interrupted."""
    args = _parser(program).parse_args(argv)
    return run_command(program, lambda: pack(args.weights, args.output, args.card, args.vae), "stopped; nothing was written")


def pack(weights: Path, output: Path, cards: list[Path], vae: Path | None = None) -> None:
    """Writes the folder `output`: all networks of `weights` in bfloat16, the tokenizer, and copies of the `cards`.

    With `vae`, a run of `itjax.training.vae`, the VAE is from there.

    Raises:
        UserError: If the weights, their tokenizer, the VAE or a card cannot be read, the VAE has other sizes, a card has the
            name of a file of the checkpoint, or `output` exists.
        OutputError: If a file cannot be written.
    """
    for card in cards:
        if not card.is_file():
            raise UserError(f"--card {card}: no such file")
    check_absent(output)
    opened = open_weights(weights)
    if not opened.tokenizer.is_dir():
        raise UserError(f"{weights} has no tokenizer: {opened.tokenizer} does not exist; convert or assemble it again")
    tokenizer = {f"{TOKENIZER}/{file.name}": file for file in sorted(opened.tokenizer.iterdir())}
    preset = opened.preset
    preset = replace(preset, sampler=configs.PRESETS.get(preset.name, preset).sampler)
    mesh = make_mesh(heads=preset.networks.dit.num_heads)
    specs = network_specs(preset.networks)
    tree = {name: opened.read(name, mesh, jnp.bfloat16) for name in specs if not (vae and name == "vae")}
    if vae:
        half = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16)
        tree |= store.restore(checkpoint_in(vae, "vae"), {"vae": jax.tree.map(half, specs["vae"].abstract)})
    tree = jax.tree.map(np.asarray, tree)
    save_packed(output, tree, to_json(preset), tokenizer, cards)
    files = [path for path in output.rglob("*") if path.is_file()]
    print(f"wrote {output}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")


def _parser(program: str) -> argparse.ArgumentParser:
    description, _, more = (__doc__ or "").split(": ", 1)[-1].partition("\n\n")
    parser = argparse.ArgumentParser(
        program, description=description, epilog=more, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("weights", type=Path, metavar="RUN", help="training run, a checkpoint of one, or converted weights")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to create")
    parser.add_argument("--vae", type=Path, metavar="DIR", help="run of itjax.training.vae with the VAE to pack")
    parser.add_argument(
        "--card", type=Path, nargs="+", default=[], metavar="FILE", help="what describes the model: copied into the folder"
    )
    return parser


def run(argv: list[str] | None = None, program: str = "python -m itjax.commands.pack") -> int:
    """Runs `main` on the CPU: reserving an accelerator would be pointless."""
    jax.config.update("jax_platforms", "cpu")
    return main(argv, program)


if __name__ == "__main__":
    sys.exit(run())
