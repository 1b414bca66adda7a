"""The measures give the right answer where it is known: shifted sound, a frozen mouth, drifting colour, a cut."""

import numpy as np
import pytest

from itjax.evaluation import curves, drift, estimates, following, lips, persons, seams
from itjax.evaluation.pixels import pixel_curves
from itjax.synthetic import clip as clips
from itjax.synthetic import mouth, scene
from itjax.synthetic.voice import Phoneme


@pytest.fixture(scope="module")
def track():
    """A mouth that talks for ten seconds."""
    rng = np.random.default_rng(0)
    starts = np.arange(0, 10, 0.1)
    symbols = ["ɑ", "m", "i", "s", "u", ""]
    said = [Phoneme(symbols[rng.integers(6)], t, t + 0.1) for t in starts]
    return mouth.track(tuple(said), 250).jaw


@pytest.mark.parametrize("late", [-5, -1, 0, 2, 7])
def test_sound_that_is_shifted_is_found_at_its_lag(track, late):
    found = np.roll(track, late) * 0.3 + 5
    result = curves.sync(found, track)
    assert result.best_lag == late and result.best > 0.99
    assert (result.correlation > 0.99) == (late == 0)


def test_a_frozen_mouth_follows_nothing(track):
    assert curves.sync(np.full(250, 0.4), track) == curves.Sync(0.0, 0, 0.0)
    assert curves.sync(track, np.zeros(250)).correlation == 0.0


def test_noise_follows_nothing_and_lowers_what_follows(track):
    noise = np.random.default_rng(1).normal(size=250)
    assert abs(curves.sync(noise, track).correlation) < 0.2
    assert 0.5 < curves.sync(track + 0.2 * noise, track).correlation < 0.95
    assert curves.sync(1 - track, track).correlation == pytest.approx(-1)


def test_a_clip_that_is_too_short_is_refused(track):
    with pytest.raises(ValueError, match="31 frames are too few for lags of up to 8"):
        curves.sync(track[:31], track[:31])


def test_an_open_mouth_in_silence_is_found():
    speaking = np.zeros(100, bool)
    speaking[20:60] = True
    opening = np.where(speaking, 0.5, 0.0)
    opening[60:63] = 0.3  # a mouth may take a moment to shut
    assert lips.open_in_silence(opening, speaking) == 0
    assert lips.open_in_silence(np.where(speaking, 0.5, 0.1), speaking) == pytest.approx(0.2)
    assert np.isnan(lips.open_in_silence(opening, np.ones(100, bool)))


def test_the_wrong_speaker_is_found(track):
    speaking = np.zeros((2, 250), bool)
    speaking[0, 10:120] = speaking[1, 130:240] = True
    right = np.where(speaking, track, 0.0)
    assert persons.wrong_speaker(right, speaking) == 0
    assert persons.wrong_speaker(np.stack([track, track]), speaking) == pytest.approx(1, abs=0.25)
    assert persons.wrong_speaker(right[::-1], speaking) > 100
    assert np.isnan(persons.wrong_speaker(track[None], np.ones((1, 250), bool)))


@pytest.fixture(scope="module")
def film():
    """A drawn person who moves and says nothing, for 6 s."""
    shown = scene.scene(np.random.default_rng(3), 150)
    return np.stack([picture for picture, _ in scene.frames(shown, (mouth.rest_track(150),), 48, 48)])


def test_a_cut_is_a_seam_and_going_on_is_none(film):
    smooth = seams.seams(pixel_curves(film).step, [33, 66, 99])
    assert max(smooth) < 2
    found = [smooth[1]]
    for pixels in (1, 3, 6):  # the further it jumps, the worse
        jump = pixel_curves(np.concatenate([film[:66], np.roll(film[66:], pixels, axis=2)])).step
        first, cut, last = seams.seams(jump, [33, 66, 99])
        assert first == pytest.approx(smooth[0]) and last == pytest.approx(smooth[2])
        found.append(cut)
    assert found == sorted(found) and found[-1] > 4 * max(smooth)
    still = np.zeros(30)
    assert seams.seams(still, [10]) == [1.0]
    still[10] = 9
    assert seams.seams(still, [10]) == pytest.approx([9 / seams.NOISE])
    still[10] = 0.04  # what encoding leaves of no motion
    assert seams.seams(still, [10]) == [1.0]
    with pytest.raises(ValueError, match="border 30"):
        seams.seams(still, [30])


def test_drifting_colour_is_measured_in_levels_per_ten_seconds(film):
    color = pixel_curves(film).color
    before = drift.color_drift(np.concatenate([color, color[::-1]]))
    assert before < 5
    for size in (1.0, 3.0):
        rate = size * np.array([3.0, -1.0, 2.0]) / 25  # levels a frame
        drifting = 100.0 + np.arange(500)[:, None] * rate
        expected = np.linalg.norm(rate) * 250
        assert drift.color_drift(drifting) == pytest.approx(expected)
        assert drift.color_curve(drifting) == pytest.approx(np.arange(20) * expected / 10)
    assert drift.color_drift(np.concatenate([color[:25]] * 8)) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="49 frames are less than two seconds"):
        drift.color_drift(drifting[:49])


def test_a_pose_that_snaps_to_its_reference_is_told_from_one_that_follows():
    source = np.stack([scene.drift(np.random.default_rng(i), 200, 1.0, 0.3) for i in range(3)], axis=1)
    reference = np.repeat(source[::50], 50, axis=0)
    assert following.fit_pose(source, source, reference) == pytest.approx((1, 0), abs=1e-9)
    assert following.fit_pose(reference + 0.1, source, reference) == pytest.approx((0, 1), abs=1e-9)
    assert following.fit_pose(0.6 * source + 0.3 * reference, source, reference) == pytest.approx((0.6, 0.3))
    alone = following.fit_pose(0.5 * source, source, np.repeat(source[:1], 200, axis=0))  # one reference throughout
    assert alone == pytest.approx((0.5, 0))
    assert all(np.isnan(following.fit_pose(source, reference * 0, reference * 0)))


def test_a_mean_lies_within_its_interval_and_more_clips_narrow_it():
    rng = np.random.default_rng(0)
    few, many = (estimates.estimate(rng.normal(1, 0.5, n).tolist()) for n in (10, 1000))
    assert few.low < few.mean < few.high and few.clips == 10
    assert many.low < 1 < many.high and many.high - many.low < (few.high - few.low) / 5
    assert estimates.estimate([2.0, float("nan")]) == estimates.Estimate(2.0, None, None, 1)
    with pytest.raises(ValueError, match="no clip"):
        estimates.estimate([float("nan")])


@pytest.mark.parametrize("clips", [2, 3, 5, 12])
def test_the_true_mean_is_in_95_of_100_intervals_however_few_clips_there_are(clips):
    found = [estimates.estimate(values) for values in np.random.default_rng(clips).normal(size=(2000, clips)).tolist()]
    assert np.mean([each.low < 0 < each.high for each in found]) == pytest.approx(0.95, abs=0.02)


def test_truth_of_drawn_clips_is_perfect_by_every_measure():
    clip = clips.make((2, 2), 8.0, 48, 96, persons=2)
    openings = np.stack([said.mouth.jaw for said in clip.spoken])
    speaking = np.zeros((2, 200), bool)
    for number, said in enumerate(clip.spoken):
        for symbol, start, stop in said.speech.phonemes:
            if symbol:
                speaking[number, int(start * 25) : int(np.ceil(stop * 25))] = True
    assert persons.wrong_speaker(openings, speaking) < 1e-3
    for opening, heard in zip(openings, speaking, strict=True):
        assert lips.open_in_silence(opening, heard) < 1e-3
        assert curves.sync(opening, opening).correlation == pytest.approx(1)
