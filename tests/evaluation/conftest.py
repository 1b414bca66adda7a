"""Shared by the tests of evaluation."""

import pytest

from itjax.evaluation import drawn_model


@pytest.fixture(scope="session")
def learned_once():
    """Drawn persons are learned once, by their looks and the picture's size: films of a module have the same background."""
    learn, known = drawn_model.learn, {}

    def remembered(who, picture, *place):
        key = repr((who, picture.shape))
        if key not in known:
            known[key] = learn(who, picture, *place)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn_model, "learn", remembered)
        yield
