"""Finding drawn faces again, and reading them, without their true positions. Floors are a little under what was measured."""

import json
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from itjax.evaluation import drawn_faces
from itjax.synthetic import clip as clips

STEP = 2  # every other frame is read


class Filmed(NamedTuple):
    frames: np.ndarray
    people: list[dict]

    def true(self, person: int, group: str, name: str) -> np.ndarray:
        return np.array(self.people[person][group][name])[::STEP]


def film(seed: int, persons: int = 1) -> Filmed:
    made = clips.make((seed, 0), 3.0, 64, 64, persons, "test")
    drawn = list(clips.frames(made))
    truth = json.loads(json.dumps(clips.truth(made, [seen for _, seen in drawn])))
    return Filmed(np.stack([picture for picture, _ in drawn])[::STEP], truth["people"])


def degraded(frames: np.ndarray) -> np.ndarray:
    """Blurred like a VAE's output, with noise, other colours and the blocks of a JPEG file."""
    rng, worse = np.random.default_rng(5), []
    for frame in frames:
        soft = cv2.GaussianBlur(frame, (0, 0), 1.25) + rng.normal(0, 4, frame.shape) + [8, -8, 8]
        coded = cv2.imencode(".jpg", soft.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
        worse.append(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    return np.stack(worse)


def share(seen: dict[str, np.ndarray]) -> float:
    return float(np.mean([values.mean() for values in seen.values()]))


def r(values: np.ndarray, true: np.ndarray) -> float:
    return float(np.corrcoef(values, true)[0, 1])


@pytest.fixture(scope="module")
def one():
    filmed = film(11)
    return filmed, drawn_faces.track(filmed.frames, filmed.people[0])


@pytest.fixture(scope="module")
def another():
    return film(23)


def test_a_face_is_followed_and_read(one):
    filmed, track = one
    assert track.found.all()
    boxes = filmed.true(0, "seen", "head_box")
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert np.linalg.norm(track.center - centers, axis=1).max() < 2.0
    assert r(track.opening, filmed.true(0, "mouth", "jaw")) > 0.98
    for number, angle in enumerate(("yaw", "pitch", "roll")):
        assert np.abs(track.pose[:, number] - filmed.true(0, "pose", angle)).mean() < 0.06
    assert r(track.pose[:, 0], filmed.true(0, "pose", "yaw")) > 0.95
    assert r(track.brows, filmed.true(0, "look", "brows")) > 0.65


def test_lips_and_brows_of_many_people():
    lips, brows, shut = [], [], []
    for seed in range(30, 38):
        filmed = film(seed)
        track = drawn_faces.track(filmed.frames, filmed.people[0])
        jaw = filmed.true(0, "mouth", "jaw")
        lips.append(r(track.opening, jaw))
        brows.append(r(track.brows, filmed.true(0, "look", "brows")))
        shut.append(track.opening[jaw == 0].mean() / track.opening[jaw > 0].mean())
    assert np.mean(lips) > 0.99, lips
    assert np.mean(brows) > 0.95, brows
    assert np.mean(shut) < 0.03, shut


def test_degraded_pictures_can_still_be_read(one):
    filmed, _ = one
    track = drawn_faces.track(degraded(filmed.frames), filmed.people[0])
    assert track.found.mean() > 0.95
    assert r(track.opening, filmed.true(0, "mouth", "jaw")) > 0.95
    assert share(drawn_faces.factors(degraded(filmed.frames), filmed.people[0], track)) > 0.85


def test_a_person_has_its_own_factors_and_another_has_not(one, another):
    filmed, track = one
    own = drawn_faces.factors(filmed.frames, filmed.people[0], track)
    assert set(own) - {"hair"} == {"skin", "clothes", "lips", "hair_style", "glasses", "beard", "width"}
    assert share(own) > 0.93
    pasted = np.concatenate([filmed.frames[:10], another.frames[10:20]])
    other = drawn_faces.track(pasted, filmed.people[0])
    seen = drawn_faces.factors(pasted, filmed.people[0], other)
    assert np.mean([values[:10].mean() for values in seen.values()]) > 0.93
    assert np.mean([values[10:].mean() for values in seen.values()]) < 0.6


def test_other_clothes_are_one_factor_less(one):
    filmed, track = one
    frames, (red, green, blue) = filmed.frames.copy(), filmed.people[0]["identity"]["clothes"]
    near = np.abs(frames.astype(int) - [red, green, blue]).max(-1) < 35
    near[:, :48] = False  # of the picture's lower part
    frames[near] = 255 - frames[near]
    seen = drawn_faces.factors(frames, filmed.people[0], track)
    assert seen["clothes"].mean() < 0.2
    assert seen["glasses"].mean() > 0.8


def test_where_there_is_no_face_none_is_found_until_it_is_back(one):
    filmed, _ = one
    rng = np.random.default_rng(0)
    frames = filmed.frames[:15].copy()
    frames[3:6], frames[6:9] = 127, rng.integers(0, 256, frames[6:9].shape)
    track = drawn_faces.track(frames, filmed.people[0])
    assert not track.found[3:9].any()
    assert np.isnan(track.opening[3:9]).all()
    assert track.found[:3].all()
    assert track.found[10:].all()


def test_a_mouth_held_shut_reads_low_and_constant(one):
    filmed, track = one
    closed = int(np.argmin(filmed.true(0, "mouth", "jaw")))
    still = np.repeat(filmed.frames[closed : closed + 1], 8, axis=0)
    person = filmed.people[0] | {
        "seen": {name: values[STEP * closed :] for name, values in filmed.people[0]["seen"].items()}
    }
    held = drawn_faces.track(degraded(still), person)
    assert held.opening.max() < 0.03  # of at most 0.17
    assert held.opening.std() < 0.2 * track.opening.std()


def test_of_two_persons_each_is_read_for_itself():
    filmed = film(31, persons=2)
    tracks = [drawn_faces.track(filmed.frames, person) for person in filmed.people]
    jaws = [filmed.true(number, "mouth", "jaw") for number in (0, 1)]
    for number, track in enumerate(tracks):
        assert track.found.mean() > 0.9
        boxes = filmed.true(number, "seen", "head_box")
        assert np.nanmax(np.linalg.norm(track.center - (boxes[:, :2] + boxes[:, 2:]) / 2, axis=1)) < 2.0
        if jaws[number].std() > 0.05:
            assert r(track.opening[track.found], jaws[number][track.found]) > 0.95
    assert tracks[0].center[:, 0].max() < tracks[1].center[:, 0].min()


def test_the_same_pictures_give_the_same_numbers(one):
    filmed, track = one
    again = drawn_faces.track(filmed.frames, filmed.people[0])
    for first, second in zip(track, again, strict=True):
        np.testing.assert_array_equal(first, second)
