"""Records of drawn people, made without files."""

import numpy as np
import pytest

from itjax import records
from itjax.preparation.drawn import __main__ as command
from itjax.preparation.drawn import prepare
from itjax.records import Records
from itjax.synthetic import workers
from itjax.synthetic.source import DrawnClips
from itjax.weights import sources

FLAGS = ["--seconds", "0.84", "--frame_num", "9", "--chunk_stride", "8", "--reference_stride", "4", "--seed", "5"]
FRAMES = 21


@pytest.fixture(scope="module")
def made(checkpoint, weights, tmp_path_factory):
    """A dataset of one clip of one person and one of two; and `again`, which runs the same command."""
    out = tmp_path_factory.mktemp("drawn") / "data"
    flags = [str(out), "--checkpoint", str(checkpoint), *FLAGS, "--clips", "1", "--two_person_clips", "1"]

    def run(*more: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sources, "open_converted", lambda *_: weights)
            patch.setattr(workers, "MOST", 1)  # each takes seconds to start
            return command.main([*flags, *more])

    assert run() == 0
    return records.open_dataset(out), run


def test_clips_of_one_and_of_two_persons_are_written(made):
    dataset, _ = made
    two, one = sorted(dataset.buckets, key=lambda bucket: -bucket.persons)
    assert (one.height, one.width, one.persons, two.height, two.width, two.persons) == (48, 48, 1, 32, 64, 2)
    alone, pair = Records(dataset, one)[0], Records(dataset, two)[0]
    assert alone.num_frames == pair.num_frames == FRAMES and len(alone.chunks) == 2 and len(alone.references) == 6
    assert alone.speech.shape[0] == 1 and pair.speech.shape[0] == 2 and len(alone.text) > 1
    assert alone.masks is None and set(np.unique(pair.masks)) == {0, 1} and pair.masks[0].any() and pair.masks[1].any()
    source = DrawnClips(5, 1, 0.84, (48, 48))[0]["region"]
    cells = source[:9].reshape(9, 6, 8, 6, 8).mean(axis=(2, 4))
    np.testing.assert_allclose(alone.regions[0][0], cells[0], atol=1e-3)
    np.testing.assert_allclose(alone.regions[0][1], cells[1:5].max(0), atol=1e-3)
    assert cells.max() > 0.3  # the mouth is somewhere


def test_the_same_command_finds_everything_done(made, monkeypatch):
    _, run = made
    monkeypatch.setattr(prepare, "inputs_of", lambda *_: pytest.fail("drawn again"))
    assert run() == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seed", "6"], "was started with different arguments"),
        (["--seconds", "0.2"], "--seconds 0.2: shorter than a chunk of --frame_num 9"),
        (["--clips", "0", "--two_person_clips", "0"], "--clips 0 --two_person_clips 0: nothing to draw"),
        (["--size", "huge"], "--size huge: must be one of infinitetalk-480"),
    ],
)
def test_what_cannot_be_made_is_said(made, more, said, capsys):
    _, run = made
    assert run(*more) == 2
    assert said in capsys.readouterr().err
