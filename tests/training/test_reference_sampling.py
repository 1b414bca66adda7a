"""Each strategy draws its reference only from where it may: checked over many seeds, lengths and layouts."""

import numpy as np
import pytest

from itjax.errors import UserError
from itjax.records import Layout, chunk_starts, reference_frames
from itjax.training import reference_sampling
from itjax.training.config import STRATEGIES, References

LAYOUTS = (Layout(81, 20, 40), Layout(17, 4, 8), Layout(33, 1, 5), Layout(5, 2, 2))
KEYS = 400


def may_be_shown(references: References, frame: int, first: int, last: int) -> bool:
    """The strategies in words of frames, as the paper has them (25 frames a second)."""
    within = first <= frame <= last
    before, after = first - frame, frame - last
    match references.strategy:
        case "M0":
            return within
        case "M1":
            return frame in (first, last)
        case "M2":
            return not within and max(before, after) > 25 * references.far_seconds
        case "M3":
            return not within and max(before, after) <= 25 * references.near_seconds
        case _:
            return frame == first


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_references_come_only_from_where_they_may(strategy, layout):
    drew = 0
    for key in range(KEYS):
        rng = np.random.default_rng(key)
        references = References(strategy, near_seconds=rng.uniform(0.3, 3), far_seconds=rng.uniform(0, 6))
        num_frames = int(rng.integers(layout.frame_num, 500))
        if not len(reference_sampling.usable_chunks(references, num_frames, layout)):
            continue
        drawn = reference_sampling.draw(rng, references, num_frames, layout, context_dropout=0.0)
        first = int(chunk_starts(num_frames, layout)[drawn.chunk])
        frame = int(reference_frames(num_frames, layout)[drawn.reference])
        assert first >= 0 and first + layout.frame_num <= num_frames and 0 <= frame < num_frames
        assert may_be_shown(references, frame, first, first + layout.frame_num - 1), (key, frame, first, references)
        assert drawn.context == (strategy not in ("I2V", "FL2V"))
        drew += 1
    assert drew > KEYS / 3


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_frame_that_may_be_shown_is(strategy):
    layout, references, num_frames = Layout(17, 4, 8), References(strategy, near_seconds=0.5, far_seconds=1.0), 90
    rng = np.random.default_rng(0)
    seen = [reference_sampling.draw(rng, references, num_frames, layout, 0.0) for _ in range(4000)]
    starts, frames = chunk_starts(num_frames, layout), reference_frames(num_frames, layout)
    possible = {
        (chunk, reference)
        for chunk, start in enumerate(starts)
        for reference, frame in enumerate(frames)
        if may_be_shown(references, int(frame), int(start), int(start) + 16)
    }
    assert {(drawn.chunk, drawn.reference) for drawn in seen} == possible
    counts = np.bincount([drawn.chunk for drawn in seen], minlength=len(starts))
    usable = [chunk for chunk in range(len(starts)) if any(c == chunk for c, _ in possible)]
    # each usable chunk equally likely: within 5 standard deviations of a binomial
    expected = 4000 / len(usable)
    assert np.all(np.abs(counts[usable] - expected) < 5 * expected**0.5)


@pytest.mark.parametrize("strategy", ["M0", "M1", "M2", "M3"])
def test_a_share_of_chunks_begins_as_a_first_chunk_does(strategy):
    layout, rng = Layout(17, 4, 8), np.random.default_rng(1)
    drawn = [reference_sampling.draw(rng, References(strategy, 0.5, 1.0), 120, layout, 0.3) for _ in range(3000)]
    first = [one for one in drawn if not one.context]
    assert len(first) / len(drawn) == pytest.approx(0.3, abs=0.04)
    for one in first:  # shown its own first frame, which is all that it begins with
        assert reference_frames(120, layout)[one.reference] == chunk_starts(120, layout)[one.chunk]
    same = np.random.default_rng(1)
    with_context = [reference_sampling.draw(same, References(strategy, 0.5, 1.0), 120, layout, 0.0) for _ in range(1)]
    assert with_context[0].chunk == drawn[0].chunk


def test_a_clip_without_a_usable_chunk_is_not_drawn_from():
    short = References("M2", far_seconds=5.0)
    assert not len(reference_sampling.usable_chunks(short, 100, Layout()))
    with pytest.raises(ValueError, match="no chunk of a clip of 100 frames has a reference for strategy M2"):
        reference_sampling.draw(np.random.default_rng(0), short, 100, Layout(), 0.0)
    # a clip of one chunk has nothing outside it
    assert not len(reference_sampling.usable_chunks(References("M3"), 81, Layout()))
    assert len(reference_sampling.usable_chunks(References("M0"), 81, Layout())) == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"strategy": "M4"}, "references.strategy M4"),
        ({"near_seconds": 0.0}, "near-seconds 0.0"),
        ({"far_seconds": -1.0}, "far-s"),
    ],
)
def test_references_that_make_no_sense_are_refused(values, said):
    with pytest.raises(UserError, match=said):
        References(**values)
