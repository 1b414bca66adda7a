"""What the parity tests share: the tiny checkpoint as flags, official and converted."""

import pytest

from itjax.commands import convert as convert_weights


@pytest.fixture(scope="session")
def official_flags(recordings):
    folder = recordings / "checkpoint"
    return [
        *("--ckpt_dir", str(folder / "Wan2.1-I2V-14B-480P")),
        *("--wav2vec_dir", str(folder / "chinese-wav2vec2-base")),
        *("--infinitetalk_dir", str(folder / "InfiniteTalk/single/infinitetalk.safetensors")),
    ]


@pytest.fixture(scope="session")
def converted_flags(official_flags, tmp_path_factory):
    output = tmp_path_factory.mktemp("converted") / "checkpoint"
    assert convert_weights.main([*official_flags, "--output", str(output)]) == 0
    return ["--checkpoint", str(output)]
