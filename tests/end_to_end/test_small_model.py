"""The weights that come with the package: they talk, convert both ways unchanged, and take constant memory."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from test_memory import GIVEN_BACK, MEASURED, ROOT

from itjax import small
from itjax.commands import convert, infer
from itjax.demo import MEDIA
from itjax.errors import UserError
from itjax.evaluation.video import Job, measure
from itjax.media.containers import FRAME_RATE, SAMPLE_RATE
from itjax.media.speech import load_track
from itjax.weights import store
from itjax.weights.official import INFINITETALK, WAN, WAV2VEC2

LIPS = 0.4  # the least correlation of the lips with their truth: well below the model card's figure, as it is one short clip
LATEST = 2  # frames by which the lips may be late or early
LONG = 3000  # frames: two minutes
MEGABYTES = 10  # by which 25 chunks may add to the memory; their frames in uint8 are 22 MB


def is_shipped() -> bool:
    try:
        return small.weights_folder().is_dir()
    except UserError:
        return False


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_shipped(), reason="itjax/small/weights is not in this checkout"),
]


def test_lips_of_a_person_and_a_voice_that_were_kept_out_of_training(tmp_path):
    video, prompt = tmp_path / "portrait.mp4", json.loads((MEDIA / "portrait.json").read_text(encoding="utf-8"))["prompt"]
    media = "--image", str(MEDIA / "portrait.png"), "--audio", str(MEDIA / "portrait.flac"), "--prompt", prompt
    assert infer.main(["--preset", "small", *media, "--base_seed", "1", "--save_file", str(video)]) == 0
    numbers = measure(Job(video, truth=MEDIA)).numbers
    assert numbers.get("sync", 0) > LIPS, numbers
    assert abs(numbers["lag"]) <= LATEST, numbers


def test_conversion_both_ways_changes_nothing(tmp_path):
    folder, official, back = small.weights_folder(), tmp_path / "official", tmp_path / "back"
    assert convert.main(["--to-torch", "--checkpoint", str(folder), "--output", str(official)]) == 0
    files = "--ckpt_dir", official / WAN, "--wav2vec_dir", official / WAV2VEC2, "--infinitetalk_dir", official / INFINITETALK
    assert convert.main([*map(str, files), "--preset", "small", "--output", str(back)]) == 0
    before, after = (store.open_checkpoint(path).tensors for path in (folder, back))
    assert before.keys() == after.keys()
    for path, tensor in before.items():
        np.testing.assert_array_equal(after[path].read(()), tensor.read(()), err_msg=path, strict=True)
    assert store.read_metadata(back)["networks"] == store.read_metadata(folder)["networks"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_minutes_take_no_more_memory(tmp_path):
    speech, sound = load_track(MEDIA / "portrait.flac"), tmp_path / "long.wav"
    soundfile.write(sound, np.resize(speech, LONG * SAMPLE_RATE // FRAME_RATE), SAMPLE_RATE)
    media = "--image", str(MEDIA / "portrait.png"), "--audio", str(sound), "--save_file", str(tmp_path / "long")
    run = ["--preset", "small", *media, "--mode", "streaming", "--max_frame_num", str(LONG), "--sample_steps", "1"]
    # what is in use after each chunk: the most that was ever in use is that of encoding the speech
    program = MEASURED.replace("VmHWM", "VmRSS")
    command = [sys.executable, "-c", program, json.dumps([run])]
    # the programs of a chunk run 42 times here, so that what their optimisation costs is won back
    optimised = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {
        "PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "0", **GIVEN_BACK,
    }  # fmt: skip
    done = subprocess.run(command, env=optimised, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (used,) = json.loads(done.stdout.splitlines()[-1])
    assert len(used) > 40
    # the least of several chunks, as what is in use for a moment (10 MB) is seen in some of them; the last one is shorter
    assert min(used[-11:-1]) - min(used[5:15]) < MEGABYTES
