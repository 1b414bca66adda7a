"""What the parity tests share: the tiny checkpoint as flags, official and converted."""

import pytest


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
