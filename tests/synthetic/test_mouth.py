"""The mouth follows the phonemes: open for vowels, shut for lips' sounds and silence, and never in a jump."""

import itertools

import numpy as np
import pytest

from itjax.synthetic import mouth
from itjax.synthetic.voice import Phoneme


def said(*parts):
    """Phonemes of 0.2 s each."""
    return tuple(Phoneme(symbol, 0.2 * i, 0.2 * (i + 1)) for i, symbol in enumerate(parts))


def test_frame_f_is_what_is_said_between_f_and_f_plus_1():
    track = mouth.track((Phoneme("", 0, 0.4), Phoneme("ɑ", 0.4, 0.8), Phoneme("", 0.8, 1.2)), 30)
    moved = np.arange(30)[track.jaw > 0.5]
    assert moved.min() == 10 and moved.max() == 19  # half open in the middle of the way there and back
    assert track.jaw[:8].max() < 1e-6 and track.jaw[22:].max() < 1e-6 and track.jaw[14] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("symbol", ["p", "b", "m"])
def test_lips_meet_even_when_it_is_said_fast(symbol):
    phonemes = (Phoneme("ɑ", 0, 0.2), Phoneme(symbol, 0.2, 0.28), Phoneme("ɑ", 0.28, 0.5))
    track = mouth.track(phonemes, 12)
    assert track.jaw[4:7].min() < 0.25 and track.jaw[2] > 0.8 and track.jaw[9] > 0.8


def test_vowels_look_as_they_do():
    shapes = {symbol: mouth.at(mouth.track(said("", symbol, ""), 15), 7) for symbol in ("ɑ", "i", "u", "s", "l", "", "θ")}
    assert shapes["ɑ"].jaw > shapes["i"].jaw > shapes["s"].jaw > shapes[""].jaw == 0
    assert shapes["i"].width > shapes["ɑ"].width > shapes["u"].width
    assert shapes["u"].rounding > 0.9 > 0.1 > shapes["i"].rounding
    assert shapes["s"].teeth > shapes["ɑ"].teeth and shapes["l"].tongue > 0.9


def test_a_diphthong_ends_as_another_vowel_than_it_begins():
    track = mouth.track((Phoneme("", 0, 0.2), Phoneme("aʊ", 0.2, 0.8), Phoneme("", 0.8, 1.0)), 25)
    assert track.jaw[8] > 0.85 and track.rounding[8] < 0.1
    assert track.jaw[17] < 0.5 and track.rounding[17] > 0.6


def test_it_never_jumps_and_stays_between_0_and_1():
    rng = np.random.default_rng(0)
    symbols = [*mouth.SHAPES, ""]
    starts = np.concatenate([[0], np.cumsum(rng.uniform(0.04, 0.15, 400))])
    phonemes = tuple(Phoneme(symbols[rng.integers(len(symbols))], a, b) for a, b in itertools.pairwise(starts))
    track = mouth.track(phonemes, int(starts[-1] * 25))
    for values in track:
        assert values.dtype == np.float32 and values.min() >= 0 and values.max() <= 1 + 1e-6
        assert np.abs(np.diff(values)).max() < 0.75
    assert mouth.track(phonemes, 10).jaw.shape == (10,) and not mouth.track((), 10).jaw.any()


def test_an_unknown_symbol_is_a_weak_vowel():
    assert mouth.shape_of("ʘ") == mouth.SHAPES["ə"] and mouth.shape_of("") == mouth.REST
