import uuid
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.vector_sample import ENOUGH, VectorSample


def sampled(ids: list[str], shift: int) -> set[str]:
    return {ids[at] for at in VectorSample(shift=shift).take(ids).tolist()}


def test_all_events_of_a_first_period_are_taken() -> None:
    assert VectorSample().take(["a", "b", "c"]).tolist() == [0, 1, 2]


@given(st.integers(0, 6), st.lists(st.text(max_size=5), max_size=50), st.integers(0, 50), st.randoms())
def test_sample_depends_neither_on_order_nor_on_batches(shift: int, ids: list[str], cut: int, random: Random) -> None:
    shuffled = random.sample(ids, len(ids))
    assert sampled(shuffled[:cut], shift) | sampled(shuffled[cut:], shift) == sampled(ids, shift)


@pytest.mark.parametrize("kind", ["numbers", "uuids", "dates"])
def test_sample_of_any_kind_of_ids_has_its_share_and_favours_no_last_digit(kind: str) -> None:
    rng = Random(3)
    makers = {
        "numbers": lambda at: f"p{at}",
        "uuids": lambda at: str(uuid.UUID(int=rng.getrandbits(128))),
        "dates": lambda at: f"2026-11-{at % 30:02}T{at // 30:07}",
    }
    ids = [makers[kind](at) for at in range(64_000)]
    taken = sampled(ids, 4)
    # Four standard deviations of a binomial distribution.
    assert abs(len(taken) - 4_000) < 4 * np.sqrt(64_000 / 16 * 15 / 16)
    last = [sum(text[-1] == digit for text in taken) / sum(text[-1] == digit for text in ids) for digit in "0123456789"]
    assert max(last) < 2 * min(last)


@pytest.mark.parametrize("events", [10, ENOUGH, 2 * ENOUGH - 1, 3 * ENOUGH, 100 * ENOUGH])
def test_share_follows_the_period_before_and_is_never_less_than_enough(events: int) -> None:
    sample = VectorSample(rows=events, shift=5)
    sample.next_period()
    assert sample.rows == 0
    assert sample.shift == 0 or ENOUGH <= events / 2**sample.shift < 2 * ENOUGH
    assert sample.shift > 0 or events < 2 * ENOUGH
