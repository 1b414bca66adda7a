"""Our default precision on accelerators: no farther from float32 than the official code's own is."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

SEEDS = (1, 42)
CHUNKS = 2  # beyond, the random VAE of the checkpoint drives all variants apart
STARTS = (0, 13, 21)  # of the chunks' new frames


@pytest.mark.slow
def test_as_near_to_float32_as_the_official_bfloat16(recordings, official_flags, latents, frames_of_run):
    folder = recordings / "bfloat16"
    official = json.loads((folder / "official_distances.json").read_text())
    ours: dict[str, list] = {"latents": [], "frames": []}
    for seed in SEEDS:
        exact = load_file(folder / f"seed{seed}.safetensors")
        latents.clear()
        noise = folder / f"seed{seed}.safetensors"
        frames = frames_of_run(official_flags, recordings / "runs" / "image_one_person", noise, "bfloat16")
        relative = lambda found, true: np.linalg.norm(found - true) / np.linalg.norm(true)
        ours["latents"].append([relative(latents[chunk], exact[f"latents_{chunk}"]) for chunk in range(CHUNKS)])
        differences = np.abs(frames[: STARTS[-1]] - exact["frames"].astype(np.float32))
        ours["frames"].append([differences[STARTS[c] : STARTS[c + 1]].mean() for c in range(CHUNKS)])
    for what, found in ours.items():
        expected = [[official[f"seed{seed}"][f"chunk_{chunk}"][what] for chunk in range(CHUNKS)] for seed in SEEDS]
        ratios = np.mean(found, axis=0) / np.mean(expected, axis=0)
        # found: 1.09, 1.02 and 1.03, 1.09; with bfloat16 in the VAE, too, frames are 1.2 to 2.1 times as far
        assert (ratios < 1.15).all(), (what, ratios)
