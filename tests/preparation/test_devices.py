"""Batches over all devices make what one device makes."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_videos import FLAGS

from itjax import records
from itjax.records import Records


@pytest.mark.slow
def test_four_devices_make_the_records_of_one(videos, checkpoint, clips, dataset, devices, tmp_path):
    source, out = tmp_path / "videos", tmp_path / "out"
    source.mkdir()
    for name in ("cut.mp4", "cut.txt", "cut.region.mp4"):
        shutil.copy(videos / name, source / name)
    script = Path(__file__).with_name("four_devices.py")
    command = [sys.executable, str(script), *map(str, (source, out)), *FLAGS, "--checkpoint", str(checkpoint)]
    root = str(script.parents[2])
    environment = devices(4) | {"PYTHONPATH": root}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    made = records.open_dataset(out)
    (bucket,) = made.buckets
    found = list(Records(made, bucket))
    assert [clip.name for clip in found] == ["cut.mp4[0:25]", "cut.mp4[25:50]"]
    for clip in found:
        for name, ours, expected in zip(clip._fields, clip, clips[clip.name], strict=True):
            if isinstance(expected, np.ndarray | records.LazyRows):
                # float16 keeps 11 bits; sums of float32 are in another order in batches of another size
                np.testing.assert_allclose(np.asarray(ours), np.asarray(expected), rtol=2**-10, atol=1e-3, err_msg=name)
            else:
                assert ours == expected, name
    # the dataset's prompts were encoded beside other captions, in other batches
    np.testing.assert_allclose(records.null_prompts(made), records.null_prompts(dataset), atol=1e-5)
