"""The tiny checkpoint's parts and files, and copies of it that a test may harm."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from itjax.configs.tiny import PRESET
from itjax.weights.official import CLIP_FILE, INFINITETALK, UMT5_FILE, VAE_FILE, WAN, WAV2VEC2, open_official
from itjax.weights.specs import NetworkSpec, network_specs
from itjax.weights.torch_files import TensorFiles


class Official(NamedTuple):
    """A set of official files, by the flags that name them."""

    ckpt_dir: Path
    wav2vec_dir: Path
    infinitetalk: Path

    @property
    def flags(self) -> list[str]:
        wav2vec2, infinitetalk = str(self.wav2vec_dir), str(self.infinitetalk)
        return ["--ckpt_dir", str(self.ckpt_dir), "--wav2vec_dir", wav2vec2, "--infinitetalk_dir", infinitetalk]

    @property
    def pickles(self) -> dict[str, Path]:
        return {name: self.ckpt_dir / file for name, file in (("vae", VAE_FILE), ("umt5", UMT5_FILE), ("clip", CLIP_FILE))}


def official_in(folder: Path) -> Official:
    return Official(folder / WAN, folder / WAV2VEC2, folder / INFINITETALK)


@pytest.fixture(scope="session")
def tiny_parts() -> dict[str, NetworkSpec]:
    return network_specs(PRESET.networks)


@pytest.fixture(scope="session")
def tiny_official(recordings) -> Official:
    return official_in(recordings / "checkpoint")


@pytest.fixture(scope="session")
def tiny_files(tiny_official) -> dict[str, TensorFiles]:
    return open_official(*tiny_official)


@pytest.fixture
def copied(recordings, tmp_path) -> Official:
    """A copy that may be written to."""
    source, target = recordings / "checkpoint", tmp_path / "official"
    for file in source.rglob("*"):
        if file.is_file():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    return official_in(target)


@pytest.fixture(scope="session")
def assert_equal_files() -> Callable[[TensorFiles, TensorFiles], None]:
    """Raises where two sets of tensors differ in a name, a shape, a dtype or a bit."""

    def compare(found: TensorFiles, expected: TensorFiles) -> None:
        assert set(found.names()) == set(expected.names())
        for name in expected.names():
            ours, theirs = found.read(name), expected.read(name)
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
            assert ours.tobytes() == theirs.tobytes(), name

    return compare
