"""The saved state of a run: what does not fit the run that is to go on is refused before any weight is read."""

import numpy as np
import pytest

from itjax.config import Sampler
from itjax.errors import UserError
from itjax.media.writer import open_writer
from itjax.pipeline.resume import check_state
from itjax.sampling.plan import plan

SIZE, SAMPLER = (32, 48), Sampler(frame_num=9, motion_frames=5)
CHUNKS = plan([21], SAMPLER, 21)  # 9, 13, 17, 21 frames
GOOD = {"frames": np.zeros((5, *SIZE, 3), np.float32), "pinned_latents": np.int32(2)}


def saved(folder, state, counts=(9, 4)):
    """A run that saved `state` in each of its chunks."""
    run = open_writer(folder / "a", SIZE, 25, None, {}, resume=False)
    for count in counts:
        run.append(np.zeros((count, *SIZE, 3), np.uint8), None, state)
    return run


WITH_NAN = GOOD["frames"].copy()
WITH_NAN[0, 3, 2, 1] = np.nan
BAD = {
    "NaN": (GOOD | {"frames": WITH_NAN}, r"its frames are not numbers within -1\.\.1"),
    "too bright": (GOOD | {"frames": GOOD["frames"] + np.float32(1.5)}, r"its frames are not numbers within -1\.\.1"),
    "shape": (
        GOOD | {"frames": GOOD["frames"][1:]},
        r"its frames are float32 \[4, 32, 48, 3\], not float32 \[5, 32, 48, 3\]",
    ),
    "dtype": (GOOD | {"frames": GOOD["frames"].astype(np.float64)}, r"its frames are float64"),
    "pinned": (GOOD | {"pinned_latents": np.int32(-1)}, "its pinned_latents are -1, not 2"),
    "older names": (
        {"motion": GOOD["frames"], "pinned": GOOD["pinned_latents"]},
        "it holds motion, pinned, not frames",
    ),
    "missing": ({"frames": GOOD["frames"]}, "it holds frames, not frames, pinned_latents"),
    "empty": ({}, "it holds nothing"),
}


@pytest.mark.parametrize(("state", "reason"), BAD.values(), ids=BAD)
def test_a_state_of_something_else(state, reason, tmp_path):
    with saved(tmp_path, state) as run, pytest.raises(UserError, match=rf"a\.resume/state\.npz is damaged, or .*: {reason}"):
        check_state(run, SAMPLER, SIZE, CHUNKS)


@pytest.mark.parametrize("counts", [(9, 5), (9, 4, 4, 4, 4)])
def test_frames_that_are_not_those_of_the_chunks(counts, tmp_path):
    with saved(tmp_path, GOOD, counts) as run, pytest.raises(UserError, match="are not those of this run"):
        check_state(run, SAMPLER, SIZE, CHUNKS)


@pytest.mark.parametrize("counts", [(), (9,), (9, 4), (9, 4, 4, 4)])
def test_the_state_of_this_run(counts, tmp_path):
    with saved(tmp_path, GOOD, counts) as run:
        check_state(run, SAMPLER, SIZE, CHUNKS)


def test_frames_that_rounding_takes_beyond_1(tmp_path):
    with saved(tmp_path, GOOD | {"frames": GOOD["frames"] + np.float32(1.00001)}) as run:
        check_state(run, SAMPLER, SIZE, CHUNKS)
