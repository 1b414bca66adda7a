"""Clips for training without files: the same as the command writes, in threads, and in processes of their own."""

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import grain
import numpy as np
import pytest

from itjax.synthetic import clip as clips
from itjax.synthetic.phonemes import PHONEMES, number_of, numbers
from itjax.synthetic.source import DrawnClips
from itjax.synthetic.voice import Phoneme

SOURCE = DrawnClips(seed=3, count=3, seconds=2.0, size=(48, 96), persons=2)


@pytest.fixture(scope="module")
def read():
    return [SOURCE[number] for number in range(len(SOURCE))]


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_clip_has_all_that_the_command_writes(read):
    clip, found = clips.make((3, 1), 2.0, 48, 96, 2), read[1]
    assert found["video"].shape == (50, 48, 96, 3) and found["video"].dtype == np.uint8
    assert np.array_equal(found["video"][7], list(clips.frames(clip))[7][0])
    assert np.array_equal(found["sound"], clip.sound) and found["voices"].shape == (2, 32000)
    assert np.array_equal(found["mouth"][1, :, 0], clip.spoken[1].mouth.jaw) and found["prompt"] == clip.scene.prompt
    assert found["phonemes"].shape == (2, 50) and found["phonemes_20ms"].shape == (2, 100)
    heads = found["head_boxes"]
    assert (heads[0, :, 2] < heads[1, :, 0]).all()
    left, top, right, bottom = found["mouth_boxes"][1, 20]
    assert found["region"][20, int((top + bottom) / 2), int((left + right) / 2)] and 0 < found["region"].mean() < 0.2
    said = found["phonemes"] > 0
    assert said.any() and (found["speaking"] | ~said).all()
    with pytest.raises(IndexError, match="clip 3 of 3"):
        SOURCE[3]


def test_phonemes_are_at_their_time():
    said = (Phoneme("", 0.0, 0.1), Phoneme("m", 0.1, 0.16), Phoneme("aɪ", 0.16, 0.4))
    symbols = [PHONEMES[number] for number in numbers(said, 12, 25)]
    assert symbols == ["", "", "m", "m", *["aɪ"] * 6, "", ""]
    assert len(set(PHONEMES)) == len(PHONEMES) and number_of("aɪɹ") == number_of("a") and number_of("ʘ") == number_of("ə")


def test_threads_and_processes_read_the_same(read):
    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(SOURCE.__getitem__, range(3))):
            assert same(found, read[number])
    assert pickle.loads(pickle.dumps(SOURCE)) == SOURCE
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert same(pool.apply(SOURCE.__getitem__, (2,)), read[2])


def test_grain_reads_it(read):
    data = grain.MapDataset.source(SOURCE).shuffle(seed=1).to_iter_dataset()
    assert {found["prompt"] for found in data} == {found["prompt"] for found in read}


@pytest.mark.parametrize("persons", [1, 2])
def test_the_prompt_is_known_without_speech(persons):
    assert clips.prompt((3, 0), 1.0, 48, 96, persons) == clips.make((3, 0), 1.0, 48, 96, persons).scene.prompt
