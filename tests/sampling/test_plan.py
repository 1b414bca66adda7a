"""The plan of chunks against a plain transcription of the official loop, and against the recorded windows."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from itjax.config import Sampler
from itjax.sampling.plan import plan, speech_windows, total_frames, window_indices

SMALL = Sampler(frame_num=13, motion_frames=5)


def official(num_frames, max_frames, sampler):
    """(indices of each chunk's windows for each person, frames of the video) as the official loop goes."""
    tracks = [np.arange(n) for n in num_frames]
    start, end, chunks, made, last = 0, sampler.frame_num, [], 0, False
    while True:
        around = np.arange(start, end)[:, None] + np.arange(-2, 3)
        chunks.append([track[np.clip(around, 0, len(track) - 1)] for track in tracks])
        made += sampler.frame_num if made == 0 else sampler.new_frames
        if max_frames <= sampler.frame_num or last:
            break
        start, end = start + sampler.new_frames, end + sampler.new_frames
        if end >= min(max_frames, num_frames[0]):
            last = True
            for i, track in enumerate(tracks):
                if end >= len(track):
                    tracks[i] = np.concatenate([track, np.flip(track[-(end - len(track) + 3) :])])
    return chunks, min(made, max_frames, num_frames[-1])


@pytest.mark.parametrize("max_frames", [13, 20, 21, 29, 1000])
@pytest.mark.parametrize("lengths", [(13,), (14,), (20,), (21,), (22,), (28,), (29,), (60,), (28, 32), (32, 28), (60, 57)])
def test_plan_is_the_official_loop(lengths, max_frames):
    expected, total = official(lengths, max_frames, SMALL)
    ours = plan(lengths, SMALL, max_frames)
    assert total_frames(lengths, SMALL, max_frames) == total
    assert sum(len(range(13)[chunk.kept]) for chunk in ours) == total
    assert len(ours) <= len(expected) <= len(ours) + 1  # one chunk less where the official code would throw it away
    for chunk, persons in zip(ours, expected, strict=False):
        for length, indices in zip(lengths, persons, strict=True):
            kept = range(13)[: chunk.kept.stop]
            np.testing.assert_array_equal(window_indices(chunk, length, 13, 5)[kept], indices[kept])


@pytest.mark.parametrize("length", range(1, 13))
def test_tracks_shorter_than_a_chunk(length):
    """The official code refuses these; the track goes on backwards and then stays at its first frame."""
    (chunk,) = plan([length], SMALL, 1000)
    assert chunk.is_last and chunk.kept == slice(0, length)
    indices = window_indices(chunk, length, 13, 5)
    assert indices.min() == 0 and indices.max() == length - 1
    if length > 2:
        assert indices[0].tolist() == [0, 0, 0, 1, 2]
    assert indices[length - 1].tolist()[2:] == [length - 1, length - 1, max(length - 2, 0)]


class Recorded:
    def __init__(self, features):
        self.features, self.num_frames = features, len(features)

    def window(self, start, stop):
        assert 0 <= start < stop <= self.num_frames
        return self.features[start:stop]


@pytest.mark.parametrize("run", ["image_one_person", "video_one_person", "image_two_people", "clip"])
def test_windows_are_the_recorded_ones(run, recordings):
    folder = recordings / "runs" / run
    recording = load_file(folder / "recording.safetensors")
    settings = json.loads((folder / "settings.json").read_text())
    features = [Recorded(recording[name]) for name in sorted(recording) if name.startswith("audio_embedding_")]
    sampler = Sampler(frame_num=settings["frame_num"], motion_frames=settings["motion_frame"])
    chunks = plan([f.num_frames for f in features], sampler, settings["max_frames_num"])
    assert sum(len(range(13)[chunk.kept]) for chunk in chunks) == len(recording["frames"])
    assert f"latents_{len(chunks)}" not in recording
    for chunk in chunks:
        ours = speech_windows(chunk, features, sampler.frame_num, 5)
        np.testing.assert_array_equal(ours, recording[f"audio_windows_{chunk.number}"])
