"""Shapes in signatures are checked in every test, in the first calls of each function."""

import few_checks
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from itjax.models.dit import sinusoidal_embedding

RIGHT, WRONG = np.zeros(2), np.zeros((2, 1))


@pytest.mark.parametrize("number", [1, 2])  # in the second test as in the first
def test_the_first_calls_of_a_test_are_checked_and_no_more(number):
    for _ in range(few_checks.CALLS - 1):
        sinusoidal_embedding(RIGHT, 4)
    with pytest.raises(TypeCheckError, match="sinusoidal_embedding"):
        sinusoidal_embedding(WRONG, 4)
    sinusoidal_embedding(RIGHT, 4)
    assert few_checks.unchecked == [sinusoidal_embedding]
    sinusoidal_embedding(WRONG, 4)
