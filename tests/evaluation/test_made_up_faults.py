"""Each measure grows with the size of the fault it is for, and is at rest without one."""

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from itjax.evaluation import body as bodies
from itjax.evaluation import curves, drift, following, identity, persons, seams, sound
from itjax.evaluation.camera import CameraTracker, camera_follow
from itjax.evaluation.collect import Seen
from itjax.evaluation.faces import FaceTrack
from itjax.evaluation.numbers import Heard, Numbers, body, lips
from itjax.evaluation.numbers import following as follow_original
from itjax.evaluation.pixels import joined, pixel_curves
from itjax.evaluation.regions import speakers
from itjax.evaluation.truths import Truth, read_truth
from itjax.synthetic import clip as clips
from itjax.synthetic import scene

RATE = 25


def curve(seed, frames=250, seconds=0.3):
    return scene.drift(np.random.default_rng(seed), frames, seconds, 0.3)


def face(center, pose=None, size=20.0):
    frames = len(center)
    pose = np.zeros((frames, 3)) if pose is None else pose
    known = np.ones(frames, bool)
    return FaceTrack(known, center, np.full(frames, size), pose, np.zeros(frames), np.zeros(frames))


@pytest.fixture(scope="module")
def talk():
    """How far the mouth of someone who talks is open for ten seconds."""
    return np.abs(curve(0)) * 3


def grows(values, least):
    """Whether the values increase, from about 0, and end above `least`."""
    return abs(values[0]) < 1e-6 and all(a < b for a, b in itertools.pairwise(values)) and values[-1] > least


def test_a_mouth_that_freezes_for_longer_follows_less(talk):
    found = []
    for frames in (0, 50, 120, 200, 250):
        frozen = talk.copy()
        frozen[250 - frames :] = frozen[250 - frames - 1] if frames < 250 else 0.2
        found.append(1 - curves.sync(frozen, talk).correlation)
    assert grows(found, 0.99)


def test_frames_without_a_face_are_ignored(talk):
    seen = talk.copy()
    seen[60:100] = np.nan
    assert curves.sync(seen, talk).correlation == pytest.approx(1)
    assert curves.correlation(np.full(250, np.nan), talk) == 0
    assert curves.per_second(seen)[3] is not None and np.isnan(curves.per_second(np.full(50, np.nan))).all()


def test_beyond_the_end_of_its_truth_no_face_is_missed(talk):
    path = 30 + 8 * np.stack([curve(3), curve(4)], axis=1)
    true = face(path[:100])._replace(opening=talk[:100])
    unknown = face(np.full((150, 2), np.nan), np.full((150, 3), np.nan), np.nan)
    unknown = unknown._replace(found=np.zeros(150, bool), opening=np.full(150, np.nan), brows=np.full(150, np.nan))
    seen = FaceTrack(*(np.concatenate(parts) for parts in zip(true, unknown, strict=True)))
    truth = Truth(100, (64, 64), [{}], [true], np.zeros((100, 3)))
    measured, heard = Numbers(Path("long.mp4")), Heard(None, None, np.arange(250)[None] < 90)
    lips(measured, "", [seen], truth, heard)
    body(measured, [seen], truth, heard)
    assert measured.values["faces_found"] == 1 and measured.values["sync"] == pytest.approx(1)
    assert measured.values["head_sync"] == pytest.approx(1) and not measured.left_out


@pytest.mark.parametrize("seen", [3, 31, 32])
def test_a_correlation_needs_32_frames_with_values(seen):
    path = 30 + 8 * np.stack([curve(3), curve(4)], axis=1)
    true = face(path[:40], np.stack([curve(number)[:40] for number in (5, 6, 7)], axis=1))._replace(brows=curve(8)[:40])
    hidden = lambda x: np.where(np.arange(40) < seen, x.T, np.nan).T
    track = FaceTrack(np.arange(40) < seen, *(hidden(x) for x in true[1:]))
    truth = Truth(seen, (64, 64), [{}], [true], np.zeros((40, 3)))
    video = Seen(pixel_curves(np.zeros((40, 8, 8, 3), np.uint8)), truth.camera, {"": [track]}, [], None)
    measured = Numbers(Path("short.mp4"))
    body(measured, [track], truth, Heard(None, None, None))
    follow_original(measured, [track], video, truth, [], None)
    correlations = {"head_sync", "nod_sync", "brow_sync", "head_follow"}
    assert correlations & measured.finite().keys() == (correlations if seen == 32 else set())
    assert sum(f"{seen} frames with values, less than 32" in line for line in measured.left_out) == (4 if seen < 32 else 0)


def test_more_wrong_turns_make_a_higher_rate(talk):
    turn = (np.arange(250) // 50) % 2 == 0
    speaking = np.stack([turn, ~turn])
    openings = np.where(speaking, talk, 0.05)
    rates = []
    for swapped in range(6):
        mouths = openings.copy()
        mouths[:, : 50 * swapped] = mouths[::-1, : 50 * swapped]
        rates.append(persons.wrong_speaker_rate(mouths, speaking))
    assert grows(rates, 0.95)
    assert persons.wrong_speaker_rate(np.where(speaking, 0.05 + 0 * talk, 0.05), speaking) == 0  # nobody moves
    assert np.isnan(persons.wrong_speaker_rate(openings, np.ones((2, 250), bool)))


def test_more_frozen_frames_are_a_larger_share():
    step, moving = 1 + np.abs(curve(1)), np.ones(250, bool)
    found = [seams.frozen(np.where(np.arange(250) < frames, 0.01, step), moving) for frames in (0, 10, 60, 200, 250)]
    assert grows(found, 0.99)
    silent = np.arange(250) < 60
    assert seams.frozen(np.where(silent, 0.0, step), ~silent) == 0  # nothing is meant to move there
    assert np.isnan(seams.frozen(step, ~moving))


@pytest.mark.parametrize("width", [1, 3])
def test_flashes_are_counted_and_sized(width):
    level = 100 + 5 * curve(2)
    assert seams.flashes(level) == []
    for size in (-40.0, 10.0, 40.0):
        flashing = level.copy()
        for start in (20, 90, 200):
            flashing[start : start + width] += size
        found = seams.flashes(flashing)
        assert len(found) == 3 and found == pytest.approx([abs(size)] * 3, rel=0.2)
    step_that_stays = level + 40 * (np.arange(250) >= 100)
    assert seams.flashes(step_that_stays) == []


def test_trembling_is_told_from_motion():
    path = 30 + 8 * np.stack([curve(3, seconds=1.5), curve(4, seconds=1.5)], axis=1)
    noise = np.random.default_rng(5).normal(size=path.shape)
    found = [bodies.jitter(face(path + size * noise)) for size in (0.0, 0.1, 0.3, 1.0)]
    assert found[0] < 1 and found == sorted(found) and found[-1] > 10
    assert bodies.jitter(face(5 * path, size=100.0)) == pytest.approx(found[0])  # the size of the picture does not matter
    with pytest.raises(ValueError, match="three consecutive frames"):
        bodies.jitter(face(np.full((50, 2), np.nan)))


def test_head_speed_is_what_the_head_moves():
    path = np.stack([np.arange(50) * 0.5, np.zeros(50)], axis=1)
    turning = np.stack([np.arange(50) * 0.01, np.zeros(50), np.zeros(50)], axis=1)
    assert bodies.head_speed(face(path, turning)) == pytest.approx(np.full(50, 0.5 / 20 + 0.01))


def test_blur_and_dimming_drift():
    picture = np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8)
    blurred, dimmed = [], []
    for size in (0.0, 0.5, 2.0):
        frames = [cv2.GaussianBlur(picture, (0, 0), size * i / 100) if size * i else picture for i in range(100)]
        blurred.append(-drift.relative_drift(pixel_curves(np.stack(frames)).sharpness))
        dim = np.stack([np.clip(picture * (1 - 0.1 * size * i / 100), 0, 255).astype(np.uint8) for i in range(100)])
        dimmed.append(-curves.change_per_10_s(pixel_curves(dim).brightness))
    assert grows(blurred, 0.5) and grows(dimmed, 20)
    with pytest.raises(ValueError, match="nothing to lose"):
        drift.relative_drift(np.zeros(100))


def test_pieces_of_a_video_have_the_curves_of_the_whole():
    film = np.random.default_rng(1).integers(0, 255, (11, 16, 16, 3), np.uint8)
    pieces = [pixel_curves(film[:4]), pixel_curves(film[4:5], film[3]), pixel_curves(film[5:], film[4])]
    for whole, part in zip(pixel_curves(film), joined(pieces), strict=True):
        assert part == pytest.approx(whole)
    assert pixel_curves(film).step[1] == pytest.approx(np.abs(film[1].astype(float) - film[0]).mean())


def test_the_face_of_another_person_is_seen():
    rng = np.random.default_rng(0)
    own, other = rng.normal(size=(2, 128))
    source = own + 0.1 * rng.normal(size=(20, 128))
    found = []
    for pasted in (0, 20, 60, 100):
        frames = np.where(np.arange(100)[:, None] < pasted, other, own)
        found.append(1 - float(identity.similarity(frames, source).mean()))
    assert found[0] < 0.01 and found == sorted(found) and found[-1] > 0.8
    with pytest.raises(ValueError, match="no face was found"):
        identity.similarity(source, np.full((3, 128), np.nan))
    factors = {"hair": np.arange(10) < 5, "glasses": np.ones(10, bool)}
    seen = identity.factors_seen(factors, np.arange(10) < 9)
    assert seen == pytest.approx([1] * 5 + [0.5] * 4 + [0])


def test_what_changes_outside_the_speaker_is_in_decibels():
    original = np.random.default_rng(0).integers(40, 200, (4, 64, 64, 3), np.uint8)
    inside = speakers([face(np.full((4, 2), (32.0, 40.0)), size=10.0)], 4, (64, 64))
    assert inside[0, 40, 32] and inside[0, 63, 32] and not inside[0, 10, 10] and 0.2 < inside.mean() < 0.6
    talking = np.where(inside[..., None], 255 - original, original)  # only the speaker changes
    assert following.decibels(following.squared_error_outside(talking, original, inside)) == 100
    found = []
    for size in (1, 4, 16):
        error = following.squared_error_outside(original + np.uint8(size), original, inside)
        found.append(following.decibels(error))
        assert found[-1] == pytest.approx(20 * np.log10(255 / size), abs=0.01)
    with pytest.raises(ValueError, match="fills the picture"):
        following.decibels(following.squared_error_outside(talking, original, np.ones_like(inside)))


def test_a_face_that_is_lost_stays_where_it_was():
    center = np.full((3, 2), (20.0, 20.0))
    center[1:] = np.nan
    track = face(center, size=5.0)
    inside = speakers([track], 3, (40, 40))
    assert (inside[1] == inside[0]).all() and (inside[2] == inside[0]).all()


def wallpaper(path, zoom):
    """A patterned wall seen by a camera that moves: `path` in pixels."""
    wall = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (160, 160, 3), np.uint8), (0, 0), 2)
    wall = cv2.normalize(wall, None, 0, 255, cv2.NORM_MINMAX)
    frames = []
    for (x, y), scale in zip(path, zoom, strict=True):
        matrix = np.array([[scale, 0, x + 47.5 - scale * 79.5], [0, scale, y + 47.5 - scale * 79.5]])
        frames.append(cv2.warpAffine(wall, matrix, (96, 96), borderMode=cv2.BORDER_REFLECT))
    return np.stack(frames)


def test_the_camera_is_followed_over_pieces():
    x, y, zoom = 20 * curve(6, 60, 1.0), 20 * curve(7, 60, 1.0), np.exp(0.2 * curve(8, 60, 1.0))
    frames, free = wallpaper(np.stack([x, y], axis=1), zoom), np.zeros((60, 96, 96), bool)
    tracker = CameraTracker()
    found = np.concatenate([tracker(frames[:33], free[:33]), tracker(frames[33:], free[33:])])
    true = np.stack([x / 96, y / 96, np.log(zoom)], axis=1)
    follow, error = camera_follow(found, true)
    assert follow > 0.99 and error < 1
    half, lag = camera_follow(0.5 * found, true), camera_follow(np.roll(found, 8, axis=0), true)
    assert half[0] > 0.99 and half[1] > error and lag[0] < 0.95
    rest = np.zeros_like(true)
    assert np.isnan(camera_follow(found, rest)[0]) and camera_follow(found, rest)[1] > 3
    blank = CameraTracker()(np.full((9, 96, 96, 3), 128, np.uint8), free[:9])
    with pytest.raises(ValueError, match="too little is seen"):
        camera_follow(blank, true[:9])


def test_a_camera_whose_view_was_lost_is_found_where_it_is():
    x, frames = np.linspace(0, 12, 90), np.arange(90)
    film, free = wallpaper(np.stack([x, 0 * x], axis=1), np.ones(90)), np.zeros((90, 96, 96), bool)
    film[20:60] = 128
    found = CameraTracker()(film, free)
    assert np.isnan(found[20:60]).all()  # longer than a view is followed for
    np.testing.assert_allclose(found[60:, 0], x[60:] / 96, atol=0.01)
    assert camera_follow(found, np.stack([x / 96, 0 * x, 0 * x], axis=1))[1] < 0.5
    most = np.where((frames < 60)[:, None], np.nan, found)
    with pytest.raises(ValueError, match="too little is seen"):
        camera_follow(most, found)


def test_the_camera_of_a_small_drawn_picture_is_the_true_one(tmp_path):
    clip = clips.make((2, 85), 4.0, 64, 64, split="test")
    seen = list(clips.frames(clip))
    (tmp_path / "truth.json").write_text(json.dumps(clips.truth(clip, [places for _, places in seen])))
    truth = read_truth(tmp_path / "truth.json")
    found = CameraTracker()(np.stack([picture for picture, _ in seen]), speakers(truth.tracks, 100, (64, 64)))
    follow, error = camera_follow(found, truth.camera)
    assert follow > 0.98 and error < 0.5 and (truth.camera[0] == 0).all()


def test_the_camera_is_not_the_speaker():
    free = np.zeros((50, 96, 96), bool)
    still = wallpaper(np.zeros((50, 2)), np.ones(50))
    moving = wallpaper(np.stack([30 * curve(9, 50, 1.0)] * 2, axis=1), np.ones(50))
    inside = free.copy()
    inside[:, 30:, 20:76] = True
    frames = np.where(inside[..., None], moving, still)
    assert np.nanmax(np.abs(CameraTracker()(frames, inside)[:, :2])) < 0.005


def test_loudness_and_silence_are_heard():
    rate = sound.SAMPLE_RATE
    speech = np.random.default_rng(0).normal(0, 0.1, 2 * rate).astype(np.float32)
    speech[rate // 2 : rate] *= 1e-3
    heard, level = sound.speaking(speech, 60), sound.loudness(speech, 60)
    assert heard[:12].all() and not heard[13:25].any() and heard[25:50].all() and not heard[50:].any()
    assert level[:12].min() > 0.9 and level[13:25].max() == 0 and level[50:].max() == 0
    assert not sound.speaking(np.zeros(rate, np.float32), 25).any()


def test_open_vowels_are_told_from_hisses():
    times = np.arange(16000) / 16000
    tone = lambda pitch: np.where(times < 0.52, 0.1 * np.sin(2 * np.pi * pitch * times), 0).astype(np.float32)
    vowel, hum, hiss = (sound.open_vowels(tone(pitch), 25) for pitch in (900, 150, 5000))
    assert vowel[:12].min() > 20 * max(hum[:12].max(), hiss[:12].max()) and vowel[15:].max() < 1e-6
