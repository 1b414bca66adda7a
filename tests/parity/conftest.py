"""What the parity tests share: the tiny checkpoint as flags, official and converted."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from itjax.commands import infer
from itjax.pipeline import dub
from itjax.sampling import rollout


@pytest.fixture(scope="session")
def official_flags(recordings):
    folder = recordings / "checkpoint"
    return [
        *("--ckpt_dir", str(folder / "Wan2.1-I2V-14B-480P")),
        *("--wav2vec_dir", str(folder / "chinese-wav2vec2-base")),
        *("--infinitetalk_dir", str(folder / "InfiniteTalk/single/infinitetalk.safetensors")),
    ]


@pytest.fixture(scope="session")
def converted_flags(checkpoint):
    return ["--checkpoint", str(checkpoint)]


@pytest.fixture
def latents(monkeypatch):
    """The latents of each chunk that a run makes, as the official code lays them out [C, T, h, w]."""
    made = []
    streamed = rollout.streamed

    def watched(*args):
        for carry, output in streamed(*args):
            made.append(np.moveaxis(np.asarray(output.latents), -1, 0))
            yield carry, output

    monkeypatch.setattr(dub.rollout, "streamed", watched)
    return made


@pytest.fixture
def frames_of_run(tmp_path) -> Callable[..., np.ndarray]:
    """frames_of_run(weights' flags, folder of the run, file with noise, dtype) -> the frames that infer.py makes."""

    def run(weights: list[str], folder: Path, noise: Path, dtype: str) -> np.ndarray:
        settings = json.loads((folder / "settings.json").read_text())
        clip = settings["max_frames_num"] == settings["frame_num"]
        flags = {
            "--input_json": folder / "input.json",
            "--size": "infinitetalk-480",
            "--mode": "clip" if clip else "streaming",
            "--frame_num": settings["frame_num"],
            "--motion_frame": settings["motion_frame"],
            "--sample_steps": settings["sampling_steps"],
            "--sample_shift": settings["shift"],
            "--sample_text_guide_scale": settings["text_guide_scale"],
            "--sample_audio_guide_scale": settings["audio_guide_scale"],
            "--color_correction_strength": settings["color_correction_strength"],
            "--noise": noise,
            "--save_frames": tmp_path / "frames.npy",
            "--save_file": tmp_path / "video",
            "--dtype": dtype,
        }
        assert infer.main([*weights, *(str(x) for pair in flags.items() for x in pair)]) == 0
        return np.load(tmp_path / "frames.npy")

    return run
