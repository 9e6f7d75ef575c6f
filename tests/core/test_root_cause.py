"""Root causes: what broke is ranked before what merely goes along with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from load_tests.studies.root_cause import FAULTS, rank
from tailrace.core.root_cause import Cause, Condition, Sample, explain


def sample(loss: NDArray[np.float64], **attributes: NDArray[np.str_]) -> Sample:
    return Sample(loss, np.zeros((len(loss), 1), np.float32), attributes)


@pytest.mark.parametrize("fault", FAULTS[::3], ids=lambda fault: fault.name)
def test_planted_fault_is_among_the_first_three(fault: object) -> None:
    assert 1 <= rank(fault, seed=11) <= 3  # type: ignore[arg-type]  # parametrised


def causes_of(country: NDArray[np.str_], loss: NDArray[np.float64], before: NDArray[np.float64]) -> list[Cause]:
    return explain(["x"], sample(before, country=country), sample(loss, country=country)).causes


@given(st.integers(0, 2**32 - 1))
def test_shares_of_a_column_add_up_to_the_rise_where_every_group_was_large(seed: int) -> None:
    rng = np.random.default_rng(seed)
    country = np.repeat(["a", "b", "c"], 4_000)
    before = rng.random(len(country))
    loss = before + (country == "b") * rng.random() + 0.01
    found = [c for c in causes_of(country, loss, before) if [k.column for k in c.conditions] == ["country"]]
    assert sum(cause.share for cause in found) == pytest.approx(1.0, abs=0.05)


def test_nothing_is_blamed_where_the_loss_has_not_risen() -> None:
    country = np.repeat(["a", "b"], 500)
    before = np.random.default_rng(1).random(1_000)
    assert causes_of(country, before, before) == []


def test_rise_everywhere_is_blamed_on_no_group() -> None:
    country = np.repeat(["a", "b", "c", "d"], 1_000)
    before = np.random.default_rng(1).random(4_000)
    assert causes_of(country, before + 0.3, before)[0].conditions == []


def test_examples_are_the_worst_predictions_of_the_group() -> None:
    country = np.repeat(["a", "b"], 500)
    before = np.random.default_rng(1).random(1_000)
    loss = before + (country == "b")
    first = causes_of(country, loss, before)[0]
    assert first.conditions == [Condition("country", "b")]
    assert first.examples == np.argsort(-loss, kind="stable")[:5].tolist()
    assert (first.rows_before, first.rows_now) == (0.5, 0.5)
