"""Errors of numbers: against scikit-learn, whatever workers they are split over, and taken back exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, root_mean_squared_error

from tailrace.core.error_cells import PREDICTED, ErrorCells, cell_of, estimated
from tailrace.core.regression import (
    STEPS,
    ValueGrid,
    counted_errors,
    error_intervals,
    metrics_of_errors,
    metrics_of_numbers,
)

GRID = ValueGrid(-20.0, 180.0)
NUMBERS = st.floats(-20.0, 180.0, allow_nan=False)


def drawn(seed: int, n: int = 5_000, spread: float = 12.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predictions on the grid, and outcomes within its range."""
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(0.0, 150.0, n)
    outcomes = np.clip(predicted + rng.normal(2.0, spread, n), GRID.low, GRID.high)
    return GRID.values(GRID.positions(predicted)), outcomes


@pytest.mark.parametrize("quantile", [None, 0.1, 0.5, 0.9])
def test_metrics_are_those_of_scikit_learn_within_a_thousandth_of_the_range(quantile: float | None) -> None:
    grid = ValueGrid(GRID.low, GRID.high, quantile)
    predicted, outcomes = drawn(3)
    found = metrics_of_numbers(grid, predicted, outcomes)
    level = 0.5 if quantile is None else quantile
    expected = {
        "mae": mean_absolute_error(outcomes, predicted),
        "rmse": root_mean_squared_error(outcomes, predicted),
        "pinball": mean_pinball_loss(outcomes, predicted, alpha=level),
        "bias": float((predicted - outcomes).mean()),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=0.001 * 200.0 / 8), name
    if quantile is None:
        assert found["coverage"] is None
    else:
        assert found["coverage"] == pytest.approx(float((outcomes <= predicted).mean()), abs=1e-12)


def test_outcomes_on_the_grid_give_scikit_learns_metrics_to_the_last_digits() -> None:
    predicted, outcomes = drawn(4)
    outcomes = GRID.values(GRID.positions(outcomes))
    found = metrics_of_numbers(GRID, predicted, outcomes)
    assert found["mae"] == pytest.approx(mean_absolute_error(outcomes, predicted), rel=1e-12)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(outcomes, predicted), rel=1e-12)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(0, 3)), min_size=1, max_size=60))
def test_errors_counted_by_four_workers_are_those_of_one_bit_for_bit(rows: list[tuple[float, float, int]]) -> None:
    predicted, outcomes = (np.array([row[at] for row in rows]) for at in (0, 1))
    worker = np.array([row[2] for row in rows])
    errors, cells = GRID.errors(predicted, outcomes), cell_of(GRID.positions(predicted))
    one = ErrorCells()
    one.predicted(cells)
    one.labelled(cells, errors)
    merged = ErrorCells()
    histogram, above = np.zeros((2, 2 * STEPS + 1), np.int64)
    for number in range(4):
        mine = worker == number
        part = ErrorCells()
        part.predicted(cells[mine])
        part.labelled(cells[mine], errors[mine])
        merged.add(ErrorCells.read(part.stored()))
        histogram += np.bincount(errors[mine] + STEPS, minlength=len(histogram))
        above += np.bincount(errors[mine & (outcomes > predicted)] + STEPS, minlength=len(histogram))
    assert merged.sums.tolist() == one.sums.tolist()
    bins = np.flatnonzero(histogram)
    together = metrics_of_errors(bins - STEPS, histogram[bins], above[bins], step=GRID.step, quantile=0.3)
    assert together == metrics_of_numbers(ValueGrid(GRID.low, GRID.high, 0.3), predicted, outcomes)


def test_what_is_taken_back_leaves_nothing_behind() -> None:
    predicted, outcomes = drawn(5, n=300)
    errors, cells = GRID.errors(predicted, outcomes), cell_of(GRID.positions(predicted))
    sums = ErrorCells()
    sums.labelled(cells, errors)
    sums.labelled(cells, errors, -1)
    assert not sums.sums.any()


def test_no_data_is_no_metric() -> None:
    none = np.empty(0, np.int64)
    assert set(metrics_of_errors(none, none, none, step=1.0, quantile=0.5).values()) == {None}


def test_a_number_that_is_none_has_no_place() -> None:
    with pytest.raises(ValueError, match="no place"):
        GRID.positions(np.array([np.nan]))


def test_intervals_cover_what_the_metrics_are_in_the_long_run() -> None:
    predicted, outcomes = drawn(0, n=400_000)
    truth = metrics_of_numbers(ValueGrid(GRID.low, GRID.high, 0.9), predicted, outcomes)
    covered = dict.fromkeys(("mae", "rmse", "bias", "pinball", "coverage"), 0)
    parts = np.array_split(np.arange(len(predicted)), 400)
    for part in parts:
        counted = counted_errors(GRID, predicted[part], outcomes[part])
        for name, (low, high) in error_intervals(*counted, step=GRID.step, quantile=0.9).items():
            covered[name] += low <= (truth[name] or 0.0) <= high
    for name, count in covered.items():
        assert 0.91 <= count / len(parts) <= 0.985, name


def test_errors_are_estimated_where_predictions_moved_to_where_they_are_larger() -> None:
    rng = np.random.default_rng(8)

    def window(centre: float, n: int) -> tuple[ErrorCells, float]:
        predicted = np.clip(rng.normal(centre, 20.0, n), 0.0, 150.0)
        outcomes = predicted + rng.normal(0.0, 2.0 + predicted / 10.0)
        errors, cells = GRID.errors(predicted, outcomes), cell_of(GRID.positions(predicted))
        sums = ErrorCells()
        sums.predicted(cells)
        sums.labelled(cells, errors)
        return sums, metrics_of_numbers(GRID, predicted, outcomes)["mae"] or 0.0

    older, was = window(60.0, 20_000)
    newer, will_be = window(100.0, 5_000)
    asked = np.zeros_like(newer.sums)
    asked[PREDICTED] = newer.sums[PREDICTED]
    reading = estimated(asked, older.sums, step=GRID.step)
    assert will_be > 1.3 * was
    low, high = reading.intervals["mae"]
    assert low <= will_be <= high
    assert reading.metrics["mae"] == pytest.approx(will_be, rel=0.05)


def test_nothing_is_estimated_from_too_few_outcomes() -> None:
    asked = ErrorCells()
    asked.predicted(np.array([3]))
    reading = estimated(asked.sums, ErrorCells().sums, step=GRID.step)
    assert reading.metrics == {}
    assert "needed" in reading.withheld
