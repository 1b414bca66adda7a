"""What of a video becomes clips: cuts, lengths, silence and damage, each told with its reason. Runs no network."""

import threading
import time
import warnings

import made_videos
import numpy as np
import pytest
import soundfile
from made_videos import UNUSABLE, moving, voice, write

from itjax.configs.tiny import SIZES
from itjax.errors import UserError
from itjax.preparation.clips import Limits, Skipped, scan, scanned_from_json
from itjax.preparation.prepare import map_in_order
from itjax.preparation.scenes import find_scenes, split_scene
from itjax.preparation.videos import find_videos, signatures

LIMITS = Limits(min_frames=17, max_frames=100)


def look(path, limits=LIMITS):
    """What is found in the one video of this path."""
    (video,) = (video for video in find_videos(path.parent, path.parent / "out") if video.path == path)
    return scan(video, SIZES, limits, threading.Event())


def test_no_clip_crosses_a_cut(tmp_path):
    scenes = [moving(37, 1), moving(20, 2), moving(29, 3)]
    found = look(write(tmp_path / "a.mp4", np.concatenate(scenes), voice(86 / 25)))
    assert found.clips == ((0, 37), (37, 57), (57, 86)) and found.skipped == ()
    assert (found.height, found.width, found.persons, found.caption) == (48, 48, 1, "")


def test_a_scene_between_close_cuts_is_too_short_and_listed(tmp_path):
    frames = np.concatenate([moving(20, 1), moving(5, 2), moving(20, 3)])
    found = look(write(tmp_path / "a.mp4", frames, voice(45 / 25)))
    assert found.clips == ((0, 20), (25, 45))
    reason = "too short: 5 frames (0.20 s) between cuts, at least 17 are required"
    assert found.skipped == (Skipped(20, 25, reason),)


@pytest.mark.parametrize(("rate", "count", "expected"), [(24, 48, 50), (25, 50, 50), (30, 60, 51), (50, 100, 51)])
def test_every_rate_becomes_25(tmp_path, rate, count, expected):
    """Up to the first frame at which the source's last one is on show: at 30 a second that begins at 1.967 s."""
    found = look(write(tmp_path / "a.mp4", moving(count), voice(2), rate=rate))
    assert found.clips == ((0, expected),)


def test_only_the_silent_scene_is_left_out(tmp_path):
    sound = np.concatenate([voice(1.0), np.zeros(made_videos.RATE, np.float32)])
    found = look(write(tmp_path / "a.mp4", np.concatenate([moving(25, 1), moving(25, 2)]), sound))
    assert found.clips == ((0, 25),)
    (skipped,) = found.skipped
    assert skipped[:2] == (25, 50) and skipped.reason.startswith("silent: ")


def test_one_voice_of_two_is_enough(tmp_path):
    write(tmp_path / "a.mp4", moving(25), None)
    soundfile.write(tmp_path / "a.1.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "a.2.wav", voice(1.0), 16_000)
    assert look(tmp_path / "a.mp4").clips == ((0, 25),)


def test_frames_that_the_decoder_made_up_are_in_no_clip(tmp_path):
    """A damaged frame is still shown, and so are all that lean on it, without an error: until the next keyframe."""
    scenes = np.concatenate([moving(40, 1), moving(60, 2), moving(40, 3)])
    path = write(tmp_path / "a.mp4", scenes, voice(140 / 25), keyframes=100)  # and one at each cut, by x264 itself
    assert look(path).clips == ((0, 40), (40, 100), (100, 140))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = look(made_videos.damage(path, "video", 50))
    assert found.clips == ((0, 40), (100, 140))
    assert found.skipped == (Skipped(40, 100, "unreadable: the file is damaged here"),)


@pytest.mark.filterwarnings("ignore:.*damaged:UserWarning")
def test_what_makes_no_clip_is_told_with_the_reason(tmp_path):
    made_videos.unusable(tmp_path)
    found = {video.name: scan(video, SIZES, LIMITS, threading.Event()) for video in find_videos(tmp_path, tmp_path / "out")}
    assert found.keys() == UNUSABLE.keys()
    for name, scanned in found.items():
        (skipped,) = scanned.skipped
        assert scanned.clips == () and UNUSABLE[name] in skipped.reason, (name, skipped.reason)
        assert str(tmp_path / name) not in skipped.reason  # it is told beside the name
        assert scanned_from_json(scanned.to_json()) == scanned


@pytest.mark.parametrize("length", [1, 16, 17, 100, 101, 117, 118, 250, 1003])
@pytest.mark.parametrize("limits", [(17, 100), (17, 17), (60, 100)])
def test_pieces_are_the_whole_scene_and_bearable(length, limits):
    least, most = limits
    scene = range(30, 30 + length)
    found = list(split_scene(scene, least, most))
    assert [i for piece in found for i in piece] == list(scene)
    assert max(map(len, found)) <= most
    assert sum(len(piece) for piece in found if len(piece) < least) < least  # lost: less than one clip


def test_a_still_picture_of_any_shape_is_one_scene():
    for shape in ((2, 2), (64, 300), (1080, 30)):
        assert find_scenes([np.full((*shape, 3), 90, np.uint8)] * 30) == [range(30)]


def test_what_lies_beside_a_video_belongs_to_it(videos, tmp_path):
    two = next(video for video in find_videos(videos, tmp_path) if video.name == "pair/two.mp4")
    assert two.persons == 2 and two.caption is None and two.boxes == videos / "pair/two.json"
    assert set(signatures([two])) == {
        "pair/two.mp4",
        "pair/two.1.wav",
        "pair/two.2.wav",
        "pair/two.json",
        "pair/two.region.png",
    }


def test_files_beside_no_video_are_told(tmp_path):
    for name in ("a.mp4", "a.txt", "b.txt", "a.1.wav", ".hidden.mp4"):
        (tmp_path / name).write_text("x")
    with pytest.warns(UserWarning, match="is ignored: there is no video") as told:
        found = find_videos(tmp_path, tmp_path / "out")
    assert [video.name for video in found] == ["a.mp4"]
    assert [str(one.message).split()[0] for one in told] == [str(tmp_path / "b.txt")]


def test_the_dataset_itself_is_no_source(tmp_path):
    for name in ("a.mp4", "out/b.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [video.name for video in find_videos(tmp_path, tmp_path / "out")] == ["a.mp4"]
    with pytest.raises(UserError, match="contains the videos"):
        find_videos(tmp_path, tmp_path)


def test_results_come_in_order_and_what_waits_is_stopped():
    stop, started = threading.Event(), []

    def call(number):
        started.append(number)
        time.sleep(0.02 * (number % 3))
        return -number

    results = map_in_order(call, range(50), 4, stop)
    assert [next(results) for _ in range(6)] == [0, -1, -2, -3, -4, -5]
    assert not stop.is_set()
    results.close()
    assert stop.is_set() and len(started) < 20


def test_looking_through_a_video_ends_when_told_to(videos, tmp_path):
    stop = threading.Event()
    stop.set()
    video = next(video for video in find_videos(videos, tmp_path) if video.name == "cut.mp4")
    with pytest.raises(InterruptedError):
        scan(video, SIZES, LIMITS, stop)
