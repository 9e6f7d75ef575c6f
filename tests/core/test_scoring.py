"""What a model may give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.scoring import checked_probabilities
from tailrace.errors import ArtifactInvalid

numbers = st.one_of(
    st.floats(0, 1), st.floats(allow_nan=True), st.sampled_from([-0.0, 0.0, 1.0, 1.0 + 2**-52, -5e-324])
)


@given(st.lists(numbers, max_size=5))
def test_probabilities_are_what_lies_between_0_and_1(scores: list[float]) -> None:
    if all(0.0 <= score <= 1.0 for score in scores):
        np.testing.assert_array_equal(scores, checked_probabilities(np.array(scores), len(scores)))
    else:
        with pytest.raises(ArtifactInvalid, match="probabilities"):
            checked_probabilities(np.array(scores), len(scores))


def test_as_many_probabilities_as_rows_are_needed() -> None:
    with pytest.raises(ArtifactInvalid, match="shape"):
        checked_probabilities(np.zeros((2, 2)), 2)
