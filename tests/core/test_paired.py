"""Means of values that are not independent: what is known of them, and how often that is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from tailrace.core.paired import LEAST_ROWS, WAVES, difference


def naive_error(values: NDArray[np.float64]) -> float:
    """From the definition: mean square of the projections on the lowest cosine waves."""
    n = len(values)
    at = (np.arange(n) + 0.5) / n
    waves = range(1, int(WAVES * n ** (2 / 3)) + 1)
    squares = [((2.0 / n) ** 0.5 * ((values - values.mean()) * np.cos(np.pi * k * at)).sum()) ** 2 for k in waves]
    return float((np.mean(squares) / n) ** 0.5)


@pytest.mark.parametrize("n", [LEAST_ROWS, 37, 500])
def test_error_is_that_of_the_definition(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n).cumsum()
    found = difference(values)
    assert naive_error(values) == pytest.approx(found.error)
    assert values.mean() == pytest.approx(found.mean)


@pytest.mark.parametrize(("correlation", "n", "most"), [(0.0, 144, 0.07), (0.5, 144, 0.09), (0.8, 500, 0.10)])
def test_a_mean_of_nothing_is_seldom_taken_for_something_though_values_come_in_runs(
    correlation: float, n: int, most: float
) -> None:
    noise = np.random.default_rng(5).normal(size=(1_000, n + 100))
    runs = lfilter([1.0], [1.0, -correlation], noise)[:, 100:]
    assert np.mean([difference(values).above(0.05) > 0.0 for values in runs]) <= most


def test_values_in_runs_are_worth_as_many_as_there_are_runs() -> None:
    rng = np.random.default_rng(7)
    worth = [difference(np.repeat(rng.normal(size=200), 6)).effective for _ in range(50)]
    assert np.median(worth) == pytest.approx(200.0, rel=0.1)


def test_of_too_few_values_nothing_is_known_and_of_the_same_ones_everything() -> None:
    assert difference(np.ones(LEAST_ROWS - 1)).above(0.05) == -np.inf
    assert difference(np.empty(0)).above(0.05) == -np.inf
    assert difference(np.full(50, 0.25)).above(0.05) == 0.25
