"""Noise from a file: what is of no use is refused before any work."""

import os
import re

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from itjax.config import Sampler
from itjax.errors import UserError
from itjax.pipeline.noise_file import NoiseFile
from itjax.sampling.plan import plan


@pytest.mark.parametrize(
    ("noise", "reason"),
    [
        (np.full((16, 2, 8, 6), np.nan, np.float16), "noise_0 has numbers beyond -100..100, or that are not finite"),
        (np.full((16, 2, 8, 6), 1e20, np.float32), "noise_0 has numbers beyond -100..100"),
        (np.zeros((16, 2, 8, 6), np.int32), "noise_0 is I32; must be one of F32"),
        (np.zeros((16, 2, 8, 6), ml_dtypes.float8_e4m3fn), "noise_0 is F8_E4M3; must be one of F32"),
        (None, "cannot be read: not a file: a folder, pipe or device"),
    ],
)
def test_noise_of_no_use_is_refused_before_any_work(noise, reason, tmp_path):
    file = tmp_path / "noise.safetensors"
    if noise is None:
        os.mkfifo(file)
    else:
        save_file({"noise_0": noise}, file)
    with pytest.raises(UserError, match=f"^noise .*{re.escape(reason)}"):
        NoiseFile(file, (2, 8, 6, 16)).check(plan([3], Sampler(frame_num=5, motion_frames=1), 5))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_noise_of_any_float_type_is_read(dtype, tmp_path):
    save_file({"noise_0": np.ones((16, 2, 8, 6), dtype)}, tmp_path / "noise.safetensors")
    noise = NoiseFile(tmp_path / "noise.safetensors", (2, 8, 6, 16))
    noise.check(plan([3], Sampler(frame_num=5, motion_frames=1), 5))
    assert noise.read(0).dtype == np.float32 and (noise.read(0) == 1).all()
