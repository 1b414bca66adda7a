"""Whole runs through infer.py against the official code: from the official files and from the converted checkpoint."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from itjax.commands import infer
from itjax.pipeline import dub
from itjax.sampling import rollout

RUNS = ("image_one_person", "video_one_person", "image_two_people", "clip")


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


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["official_flags", "converted_flags"])
@pytest.mark.parametrize("name", RUNS)
def test_run_is_the_recorded_one(name, weights, request, recordings, tmp_path, latents):
    folder = recordings / "runs" / name
    settings = json.loads((folder / "settings.json").read_text())
    recording = load_file(folder / "recording.safetensors")
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
        "--noise": folder / "recording.safetensors",
        "--save_frames": tmp_path / "frames.npy",
        "--save_file": tmp_path / "video",
        "--dtype": "float32",
    }
    status = infer.main([*request.getfixturevalue(weights), *(str(x) for pair in flags.items() for x in pair)])
    assert status == 0
    assert f"latents_{len(latents)}" not in recording
    for number, ours in enumerate(latents):
        expected = recording[f"latents_{number}"]
        # changing the weights by one part in a million moves latents by 3e-5 in the third chunk, 1e-4 in a fourth
        assert np.linalg.norm(ours - expected) <= 2e-4 * np.linalg.norm(expected)
    frames = np.load(tmp_path / "frames.npy")
    assert frames.shape == recording["frames"].shape and frames.dtype == np.float32
    # the same change moves frames by 2e-4 on average, through the colour step
    assert np.abs(frames - recording["frames"]).mean() < 3e-4
