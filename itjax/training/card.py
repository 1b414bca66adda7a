"""What the cards of all trained networks say of their making."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

from itjax.training.small_loop import Ended
from itjax.version import __version__

PACKAGES = ("jax", "flax", "optax", "numpy")


def provenance(training: Mapping[str, Any], ended: Ended, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Settings, cost, device and versions of a run, as JSON.

    Args:
        training: The settings that determine the result.
        ended: How the run ended.
        packages: Packages that made the data, besides those that every trainer uses.
    """
    return {
        "training": dict(training),
        "seconds": round(ended.seconds),
        "core_seconds": round(ended.core_seconds),
        "device": jax.devices()[0].device_kind,
        "versions": {"itjax": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in (*PACKAGES, *packages)},
    }


def _version(package: str) -> str:
    """A package can be installed under another name, such as opencv-python-headless: a run must not fail for it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
