"""Shared by all tests: shapes are checked at run time, and the recordings of the official code are at hand."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook(["itjax"], "beartype.beartype")

RECORDINGS = Path(__file__).parent / "recordings"


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recordings: what the official PyTorch code computed in float32 with a tiny random checkpoint."""
    return RECORDINGS


@pytest.fixture(scope="session")
def module_recording():
    """module_recording("dit_one_person") -> {name: numpy array}."""
    from safetensors.numpy import load_file

    return lambda name: load_file(RECORDINGS / "modules" / f"{name}.safetensors")
