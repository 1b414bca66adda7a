"""Whole runs of infer.py with each --strategy: lengths, the frames of the source that are shown, and going on."""

import numpy as np
import pytest
from test_odd_inputs import film

from itjax.commands import infer
from itjax.media import journal
from itjax.pipeline import dub
from itjax.sampling import rollout

STRATEGIES = ("soft", "i2v", "fl2v")


@pytest.fixture
def frames(tmp_path):
    return tmp_path / "frames.npy"


@pytest.fixture
def make(run, talk, tmp_path, frames):
    """make(strategy, ...): a film of 10 frames dubbed with a speech of 15: four chunks of 5, which share a frame."""
    media = "--video", film(tmp_path / "film.mp4", 10), "--audio", talk(15)

    def call(strategy, *flags, name="out.mp4"):
        return run(*media, "--strategy", strategy, "--save_frames", frames, *flags, save_file=name)

    return call


@pytest.mark.parametrize(("strategy", "pairs"), [("soft", (0, 4, 8, 9)), ("i2v", (0,)), ("fl2v", (0, 4, 4, 8, 8, 9, 9, 9))])
def test_the_source_frames_that_are_shown(strategy, pairs, make, monkeypatch):
    shown = []
    monkeypatch.setattr("itjax.pipeline.encoders.resize_and_crop", lambda frame, size: shown.append(frame) or frame)
    result = make(strategy)
    assert len(result.video.frames) == 15
    assert [float(frame.mean()) for frame in shown] == pytest.approx([255 * i // 10 for i in pairs], abs=2)
    # i2v takes one frame of the source: that the film is shorter than the speech does not matter
    assert ("the last source frame is repeated" in result.said) == (strategy != "i2v")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_stopped_and_gone_on_with_equals_unbroken(strategy, make, frames, tmp_path, monkeypatch):
    make(strategy, name="whole.mp4")
    unbroken = np.load(frames)
    streamed = rollout.streamed

    def stopped(*args):
        for number, made in enumerate(streamed(*args)):
            if number == 2:
                raise KeyboardInterrupt
            yield made

    with monkeypatch.context() as patch:
        patch.setattr(dub.rollout, "streamed", stopped)
        assert make(strategy).status == 130
    kept = journal.load(tmp_path / "out.resume")
    assert kept is not None and kept.chunks == 2
    # a run begun before there was a choice has no word of it, and can be gone on with
    assert f"'strategy': '{strategy}'" in kept.fingerprint["sampler"]
    other = make(STRATEGIES[STRATEGIES.index(strategy) - 1], "--resume")
    assert other.status == 2 and "'strategy': " in other.said and "files: " not in other.said
    assert len(make(strategy, "--resume").video.frames) == 15
    assert np.array_equal(np.load(frames), unbroken)


def test_a_still_picture_is_encoded_once(run, talk, face, monkeypatch):
    """Between a picture and itself, for all chunks."""
    encoded, show = [], dub.encoders.encode_frame
    monkeypatch.setattr(dub.encoders, "encode_frame", lambda *args: encoded.append(args) or show(*args))
    result = run("--image", face, "--audio", talk(13), "--strategy", "fl2v")
    assert len(result.video.frames) == 13
    ((_, first, _, last),) = encoded
    assert np.array_equal(first, last)


@pytest.mark.parametrize("strategy", ["i2v", "fl2v"])
def test_motion_frames_are_one_without_being_asked_for(strategy, run, talk, face, quick_flags, monkeypatch):
    at, main = quick_flags.index("--motion_frame"), infer.main
    monkeypatch.setattr(infer, "main", lambda flags: main(flags[:at] + flags[at + 2 :]))
    voice = "--image", face, "--audio", talk(9)
    assert len(run(*voice, "--strategy", strategy).video.frames) == 9
    refused = run(*voice, save_file="soft.mp4")
    assert refused.status == 2 and "--motion_frame 9 leaves no new frame" in refused.said


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--strategy i2v --motion_frame 5", "--motion_frame 5: with --strategy i2v a chunk starts from one frame"),
        ("--strategy fl2v --motion_frame 5", "--motion_frame 5: with --strategy fl2v a chunk starts from one frame"),
        ("--strategy m3", "argument --strategy: invalid choice: 'm3'"),
    ],
)
def test_wrong_strategies_are_named(flags, reason, run, talk, face, no_weights_read):
    result = run("--image", face, "--audio", talk(3), *flags.split())
    assert result.status == 2
    assert reason in result.said
