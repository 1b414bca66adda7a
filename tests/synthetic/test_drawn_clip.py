"""Clips: the same from the same seed, and the picture shows what the truth says."""

import itertools

import cv2
import numpy as np
import pytest

from itjax.media.containers import SAMPLE_RATE
from itjax.synthetic import clip as clips
from itjax.synthetic import people, scene, sentences, voices
from itjax.synthetic.face import BETWEEN_LIPS
from itjax.synthetic.prosody import Prosody, prosody
from itjax.synthetic.splits import SPLITS, split_of
from itjax.synthetic.voice import Phoneme

INSIDE = np.array(BETWEEN_LIPS)


@pytest.fixture(scope="module")
def made():
    clip = clips.make((3, 1), 8.0, 128, 128)
    return clip, list(clips.frames(clip))


def pictures(clip):
    return np.stack([picture for picture, _ in clips.frames(clip)])


def test_a_seed_is_a_clip(made):
    clip, shown = made
    again = clips.make((3, 1), 8.0, 128, 128)
    assert np.array_equal(clip.sound, again.sound) and np.array_equal(np.stack([p for p, _ in shown]), pictures(again))
    other = clips.make((3, 2), 6.0, 128, 128)
    assert other.scene.prompt != clip.scene.prompt and not np.array_equal(other.sound, clip.sound)
    assert clip.sound.shape == (8 * SAMPLE_RATE,) and len(shown) == 200


def opening_by_colour(picture, seen):
    """How much of the mouth's box has a colour that is found between lips alone."""
    left, top, right, bottom = (round(x) for x in seen.mouth_box)
    box = picture[max(0, top) : bottom + 6, max(0, left) : right].astype(int)
    return (np.abs(box[:, :, None] - INSIDE).sum(-1).min(-1) < 40).sum()


@pytest.mark.parametrize("seed", range(4))
def test_the_picture_s_mouth_is_open_when_the_truth_says_so(seed):
    clip = clips.make((9, seed), 4.0, 128, 128)
    found = np.array([opening_by_colour(picture, seen[0]) for picture, seen in clips.frames(clip)], float)
    true = clip.spoken[0].mouth.jaw
    by_lag = {lag: np.corrcoef(found[3 + lag : 97 + lag], true[3:97])[0, 1] for lag in range(-3, 4)}
    assert by_lag[0] > 0.8 and max(by_lag, key=by_lag.get) == 0, by_lag


def test_what_is_seen_is_where_the_truth_says(made):
    clip, shown = made
    who = clip.scene.people[0].identity
    for picture, (seen,) in shown[::10]:
        left, top, right, bottom = seen.mouth_box
        assert left < seen.left[0] < seen.right[0] < right and top < seen.top[1] <= seen.bottom[1] < bottom
        assert seen.left_eye[1] < seen.top[1] < seen.chin[1] and seen.left_eye[0] < seen.right_eye[0]
        x, y = round(seen.left_eye[0]), round((seen.left_eye[1] + seen.top[1]) / 2)
        assert np.abs(picture[y, x].astype(int) - who.skin).max() < 12  # the cheek
    gaps = np.array([seen.bottom[1] - seen.top[1] for _, (seen,) in shown])
    assert np.corrcoef(gaps, clip.spoken[0].mouth.jaw)[0, 1] > 0.95


def test_sentences_do_not_overlap_and_are_heard_where_they_are(made):
    clip, _ = made
    said = clip.spoken[0]
    assert len(said.sentences) >= 2
    phonemes = [p for p in said.speech.phonemes if p.symbol]
    assert phonemes[-1].stop <= 8.0
    for _, start in said.sentences:
        nearest = min(abs(p.start - start) for p in phonemes)
        assert nearest < 0.01
    silent = np.ones(len(clip.sound), bool)
    for p in phonemes:
        silent[int(p.start * SAMPLE_RATE) - 400 : int(p.stop * SAMPLE_RATE) + 400] = False
    assert np.sqrt(np.mean(clip.sound[silent] ** 2)) < 0.02 < np.sqrt(np.mean(clip.sound[~silent] ** 2))


def test_of_two_persons_one_talks_at_a_time_and_the_other_s_mouth_is_shut():
    clip = clips.make((4, 0), 10.0, 64, 128, persons=2)
    assert len(clip.spoken) == 2 and all(len(said.sentences) >= 1 for said in clip.spoken)
    first, second = (said.mouth.jaw > 0.3 for said in clip.spoken)
    assert first.any() and second.any() and not (first & second).any()
    picture, (left, right) = next(clips.frames(clip))
    assert picture.shape == (64, 128, 3) and left.head_box[2] < right.head_box[0]
    assert "on the left" in clip.scene.prompt and "on the right" in clip.scene.prompt


def test_the_splits_share_no_person_no_voice_and_no_sentence():
    """Persons and sentences by hundreds; whole clips, which put them together, by a few."""
    rng = np.random.default_rng(0)
    kinds, said = ({split: {make(split) for _ in range(80)} for split in SPLITS} for make in (
        lambda split: people.identity(rng, split)[0].kind, lambda split: sentences.sentence(rng, split)
    ))  # fmt: skip
    spoken_by = {split: {*voices.variants(split, True), *voices.variants(split, False)} for split in SPLITS}
    parts = {split: {part for choices in sentences.PARTS[split] for part in choices} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        for found in (kinds, said, spoken_by, parts):
            assert found[one] and not found[one] & found[other]
    for split in SPLITS:
        for number in range(3):
            clip = clips.make((0, number), 3.0, 48, 48, split=split)
            who, (text, _) = clip.scene.people[0].identity, clip.spoken[0].sentences[0]
            assert split_of(who.kind) == split and clip.spoken[0].manner.voice.partition("+")[2] in spoken_by[split]
            assert any(text.startswith(part) for part in parts[split])
            assert bool(clip.spoken[0].manner.equalizer) <= (split == "train")


def test_a_clip_is_the_same_scene_at_every_size():
    small, large = (list(clips.frames(clips.make((5, 1), 0.4, size, size, 1))) for size in (64, 256))
    for (picture, (seen,)), (detailed, (seen_large,)) in zip(small, large, strict=True):
        reduced = cv2.resize(detailed, (64, 64), interpolation=cv2.INTER_AREA).astype(int)
        assert np.abs(reduced - picture).mean() < 2.5
        for name in ("left_eye", "bottom", "right_brow", "head_box"):  # pixels are counted from the middle of the first
            np.testing.assert_allclose((np.array(getattr(seen_large, name)) + 0.5) / 4 - 0.5, getattr(seen, name), atol=1e-9)


def test_head_and_brows_follow_the_person_s_own_voice(made):
    clip, shown = made
    look, said = clip.scene.people[0].look, clip.spoken[0].prosody
    pose = clip.scene.people[0].pose
    slow = lambda track: np.convolve(track, np.hanning(9) / np.hanning(9).sum(), "same")
    assert np.corrcoef(pose.pitch, slow(said.loudness))[0, 1] > 0.6
    assert np.corrcoef(look.brows[said.speaking], slow(said.pitch)[said.speaking])[0, 1] > 0.6
    assert not said.loudness[~said.speaking].any() and not said.pitch[~said.speaking].any()
    assert said.loudness.max() == 1 and 0 <= said.pitch.min() < said.pitch.max() <= 1
    brows = np.array([seen.left_eye[1] - seen.left_brow[1] for _, (seen,) in shown])
    assert np.corrcoef(brows, look.brows)[0, 1] > 0.5  # the head's pitch moves them, too


def test_pitch_and_loudness_are_those_of_the_sound():
    seconds = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    hertz = 100 * 1.7**seconds
    tone = np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE) * np.where(seconds < 1, 0.1, 0.2)
    found = prosody(tone.astype(np.float32), (Phoneme("a", 0.0, 2.0),), 50)
    assert np.corrcoef(found.pitch, np.arange(50))[0, 1] > 0.99 and found.speaking.all()
    np.testing.assert_allclose(found.loudness[[10, 40]], [0.5, 1.0], atol=0.05)
    silent = prosody(np.zeros(2 * SAMPLE_RATE, np.float32), (), 50)
    assert not np.any(silent)


def test_a_listener_looks_at_the_speaker_and_nods_with_a_shut_mouth():
    still = scene.scene(np.random.default_rng(2), 150, 2, 2.0)
    talks, silent = np.ones(150, bool), np.zeros(150)
    voices_ = (Prosody(np.full(150, 0.5), np.full(150, 0.5), talks), Prosody(silent, silent, ~talks))
    acted = scene.acted(np.random.default_rng(3), still, voices_)
    before, after = still.people[1], acted.people[1]
    assert np.mean(after.look.gaze_x - before.look.gaze_x) < -0.3 and np.mean(after.pose.yaw - before.pose.yaw) < -0.1
    nods = after.pose.pitch - before.pose.pitch
    assert nods.max() > 0.03 and np.abs(np.diff(nods)).max() < 0.06


def test_the_truth_says_how_the_face_looks_and_how_it_speaks(made):
    clip, shown = made
    truth = clips.truth(clip, [seen for _, seen in shown])
    who = truth["people"][0]
    assert truth["split"] == "train" and who["look"].keys() == {"open", "gaze_x", "gaze_y", "brows", "smile"}
    assert who["prosody"].keys() == {"loudness", "pitch"} and set(who["speaking"]) == {True, False}
    tracks = [*who["look"].values(), *who["prosody"].values(), who["speaking"], who["seen"]["left_brow"]]
    assert all(len(track) == 200 for track in tracks)


def test_the_voice_fits_the_person():
    for number in range(8):
        clip = clips.make((1, number), 2.0, 32, 32)
        variant = clip.spoken[0].manner.voice.partition("+")[2]
        assert variant in voices.variants("train", clip.scene.people[0].identity.woman)


def test_the_prompt_says_what_is_seen():
    rng = np.random.default_rng(0)
    for _ in range(30):
        shown = scene.scene(rng, 2)
        who, prompt = shown.people[0].identity, shown.prompt
        assert ("a woman" if who.woman else "a man") in prompt and shown.people[0].mood in prompt
        assert who.glasses == ("glasses" in prompt) and who.beard == ("beard" in prompt)
        assert f" {shown.wall.name} wall with" in prompt and f"{who.hair_style} " in prompt


def test_motion_is_smooth_and_stays_within_bounds():
    path = scene.drift(np.random.default_rng(0), 2000, 1.0, 0.2)
    assert np.abs(path).max() <= 0.4 and 0.05 < path.std() < 0.2 and abs(path.mean()) < 0.05
    assert np.abs(np.diff(path)).max() < 0.05
    still = scene.scene(np.random.default_rng(1), 40, liveliness=0.0)
    assert all(np.ptp(values) == 0 for values in (still.people[0].pose.yaw, still.people[0].pose.x, still.camera.zoom))
