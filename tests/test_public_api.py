"""`import itjax` in a notebook or a server: the README's lines run, and print nothing unless they are asked to."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import pytest

import itjax
from itjax.pipeline import encoders
from itjax.sampling.schedule import euler_times

ROOT = Path(__file__).parent.parent


@pytest.fixture
def lines(checkpoint, recordings, tmp_path, monkeypatch) -> str:
    """The README's example, and the files that it names in the current folder."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "itjax").symlink_to(checkpoint)
    shutil.copy(recordings / "media" / "face.png", tmp_path / "me.jpg")
    shutil.copy(recordings / "media" / "b44100.wav", tmp_path / "hello.wav")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(import itjax\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return example


def test_the_readme_example_runs_in_silence_without_a_terminal(lines, capfd):
    assert "steps=20" in lines and ", progress=itjax.Terminal()" in lines
    names: dict = {}
    exec(lines.replace("steps=20", "steps=1").replace(", progress=itjax.Terminal()", ""), names)
    assert capfd.readouterr() == ("", "")
    with av.open(str(names["video"])) as container:
        assert container.streams.video[0].frames > 25 and container.streams.audio
    exec(lines.replace("steps=20", "steps=1").replace("hello.mp4", "again.mp4"), names)
    printed = capfd.readouterr()
    assert "wrote again.mp4" in printed.out and printed.err == ""  # no bar: it is no terminal, and takes no minute


def test_what_cannot_be_is_an_error_with_the_reason(checkpoint, recordings, tmp_path):
    weights = itjax.open_weights(checkpoint)
    request = itjax.Request("a face", recordings / "media" / "face.png", {"person1": recordings / "media" / "b44100.wav"})
    with pytest.raises(itjax.UserError, match="size huge: must be one of infinitetalk-480, infinitetalk-720"):
        itjax.dub(request, itjax.Settings(tmp_path / "a.mp4", size="huge"), weights)


def test_the_timestep_shift_is_that_of_the_size(checkpoint, recordings, tmp_path, monkeypatch):
    weights, shifts = itjax.open_weights(checkpoint), []
    request = itjax.Request("a face", recordings / "media" / "face.png", {"person1": recordings / "media" / "b44100.wav"})
    monkeypatch.setattr(encoders, "euler_times", lambda steps, shift: shifts.append(shift) or euler_times(steps, shift))
    for name, sampler in (("a", itjax.Sampler(steps=1)), ("b", itjax.Sampler(steps=1, shift=2.0))):
        itjax.dub(request, itjax.Settings(tmp_path / name, sampler, "infinitetalk-720", max_frames=1), weights)
    assert shifts == [weights.preset.sizes["infinitetalk-720"].shift, 2.0]


def test_importing_it_waits_for_nothing():
    script = "import sys, itjax; print(sorted({'jax', 'flax', 'torch', 'numpy', 'av'} & sys.modules.keys()), dir(itjax))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ") and "'open_weights'" in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'sing'"):
        _ = itjax.sing
