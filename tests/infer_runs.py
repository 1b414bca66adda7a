"""Fixtures for whole runs of infer.py with the tiny checkpoint: flags, media made on the spot, and what came out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
import soundfile

RATE = 16_000


class Video(NamedTuple):
    """A decoded mp4."""

    frames: np.ndarray
    sound: np.ndarray  # mono, 48 kHz

    @property
    def seconds_of_sound(self) -> float:
        return len(self.sound) / 48_000


class Result(NamedTuple):
    """What a run left: exit status, what it said (`said`: warnings and errors), and its video's path."""

    status: int
    out: str
    said: str
    path: Path

    @property
    def video(self) -> Video:
        assert self.status == 0, self.said
        return decoded(self.path)


def decoded(path: Path) -> Video:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = [frame.to_ndarray().mean(axis=0) for frame in container.decode(audio=0)]
    return Video(np.stack(frames), np.concatenate(sound))


@pytest.fixture
def talk(tmp_path) -> Callable[..., Path]:
    """talk(frames) writes a sound file of so many video frames: noise, always loud."""

    def write(frames: float, rate: int = RATE) -> Path:
        path = tmp_path / f"{frames}_frames_{rate}.wav"
        noise = np.random.default_rng(0).normal(0, 0.1, round(frames * rate / 25))
        soundfile.write(path, noise, rate, subtype="FLOAT")
        return path

    return write


@pytest.fixture(scope="session")
def decode() -> Callable[[Path], Video]:
    return decoded


@pytest.fixture(scope="session")
def weight_flags(recordings) -> list[str]:
    folder = recordings / "checkpoint"
    return [
        *("--ckpt_dir", str(folder / "Wan2.1-I2V-14B-480P")),
        *("--wav2vec_dir", str(folder / "chinese-wav2vec2-base")),
        *("--infinitetalk_dir", str(folder / "InfiniteTalk/single/infinitetalk.safetensors")),
    ]


@pytest.fixture(scope="session")
def quick_flags(weight_flags) -> list[str]:
    """The tiny checkpoint, streaming, as little work a chunk as there can be: 4 new frames in one step."""
    sampling = "--mode streaming --frame_num 5 --motion_frame 1 --sample_steps 1"
    return [*weight_flags, *sampling.split()]


@pytest.fixture
def run(quick_flags, tmp_path, capsys) -> Callable[..., Result]:
    """run("--image", face, ...) in this process, so that compiled programs are shared among tests."""

    from itjax.commands import infer

    def call(*flags: object, save_file: str | Path = "out.mp4") -> Result:
        path = tmp_path / save_file
        try:
            status = infer.main([*quick_flags, "--save_file", str(path), *map(str, flags)])
        except SystemExit as stopped:  # argparse
            status = stopped.code
        return Result(status, *capsys.readouterr(), path)

    return call


@pytest.fixture
def run_json(run, tmp_path) -> Callable[..., Result]:
    """run_json(content) with an input JSON of this content."""

    def call(content: object, *flags: object) -> Result:
        path = tmp_path / "input.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content, default=str))
        return run("--input_json", path, *flags)

    return call


@pytest.fixture
def no_weights_read(monkeypatch) -> None:
    """Fails a run that gets as far as reading weights: what is wrong must have been said before."""

    from itjax.commands import infer

    def opened(*args, **kwargs):
        weights = open_files(*args, **kwargs)
        return weights._replace(read=lambda *_: pytest.fail("weights were read"))

    open_files = infer.open_files
    monkeypatch.setattr(infer, "open_files", opened)


@pytest.fixture
def face(recordings) -> Path:
    return recordings / "media" / "face.png"
