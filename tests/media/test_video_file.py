"""Samples as they play: pictures side by side, and their sound."""

import os

import av
import numpy as np
import pytest

from itjax.errors import OutputError
from itjax.media.video_file import write_video
from itjax.training.sampling import side_by_side


def halves(count):
    """Frames of two even colours that change with time, apart enough to survive H.264."""
    level = np.arange(count, dtype=np.uint8)[:, None, None, None] * 10
    return np.broadcast_to(40 + level, (count, 32, 48, 3)).copy(), np.broadcast_to(200 - level, (count, 32, 48, 3)).copy()


def decoded(path):
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        assert video.average_rate == 25
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return frames, None
        assert container.streams.audio[0].rate == 16_000
        return frames, np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def test_the_source_is_left_and_the_sample_right(tmp_path):
    source, sampled = halves(7)
    path = tmp_path / "samples" / "step_7.mp4"
    write_video(path, side_by_side(source, sampled), None)
    frames, sound = decoded(path)
    assert frames.shape == (7, 32, 96, 3) and sound is None
    np.testing.assert_allclose(frames[:, :, 4:44].astype(int), source[:, :, 4:44], atol=4)
    np.testing.assert_allclose(frames[:, :, 52:92].astype(int), sampled[:, :, 4:44], atol=4)
    assert os.listdir(path.parent) == ["step_7.mp4"]


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0])
def test_sound_is_as_long_as_the_pictures(seconds, tmp_path):
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(16_000 * seconds)) / 16_000)).astype(np.float32)
    write_video(tmp_path / "a.mp4", np.concatenate(halves(12) + (halves(1)[0],)), tone)  # 25 pictures
    frames, sound = decoded(tmp_path / "a.mp4")
    assert len(frames) == 25 and 16_000 <= len(sound) < 16_000 + 2 * 1024
    heard = min(len(tone), 16_000)
    np.testing.assert_allclose(sound[2000 : heard - 1024], tone[2000 : heard - 1024], atol=0.05)
    assert np.abs(sound[heard + 2048 : 16_000]).max(initial=0) < 0.01


def test_an_older_sample_is_replaced(tmp_path):
    source, sampled = halves(3)
    for frames in (source, sampled):
        write_video(tmp_path / "a.mp4", frames, None)
    np.testing.assert_allclose(decoded(tmp_path / "a.mp4")[0].astype(int), sampled, atol=4)


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path, disk_of):
    noise = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    write_video(tmp_path / "whole.mp4", noise, None)
    size = (tmp_path / "whole.mp4").stat().st_size
    for limit in (100, size - 500):
        with disk_of(limit), pytest.raises(OutputError, match=r"cannot write .*a\.mp4"):
            write_video(tmp_path / "a.mp4", noise, None)
        assert os.listdir(tmp_path) == ["whole.mp4"]
