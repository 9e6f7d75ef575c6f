"""The delay curve against a naive product-limit estimate and its law; a change of the delays is found."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tailrace.core.delay_drift import DelayDrift, find_drift
from tailrace.core.label_delay import DAY_MS, EDGES_MS, STEPS, Delays, cell_of, curve_of, learn, steps_of, strata_of

WINDOW_MS = 4 * DAY_MS
ROWS = st.lists(
    st.tuples(st.integers(0, 6 * DAY_MS), st.integers(1, WINDOW_MS - 1), st.sampled_from([0.02, 0.3, 0.9])),
    min_size=1,
    max_size=60,
)


def columns(rows: list[tuple[int, int, float]]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    ages, delays, scores = zip(*rows, strict=True)
    return np.array(ages, dtype=np.int64), np.array(delays, dtype=np.int64), np.array(scores)


def came(rows: list[tuple[int, int, float]], now_ms: int = 20 * DAY_MS) -> Delays:
    """Outcomes by age of their predictions, of which only those with a shorter delay are there."""
    age, delay, score = columns(rows)
    seen = delay <= age
    closed = age[seen] >= WINDOW_MS
    return Delays.of(now_ms - age[seen], score[seen], delay[seen], closed, now_ms)


def naive_shares(rows: list[tuple[int, int, float]], edges: list[int]) -> list[float]:
    """F at the edges: of the outcomes that had come by an edge, those that had come by the one before it."""
    share, shares = 1.0, [1.0]
    for low, high in reversed(list(pairwise(edges))):
        # A closed prediction is past every edge.
        told = [d for a, d, _ in rows if d <= a and d <= high and (a >= high or a >= WINDOW_MS)]
        if told and low < WINDOW_MS:
            share *= sum(d <= low for d in told) / len(told)
        shares.append(share)
    return shares[::-1]


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_curve_is_the_naive_product_limit_estimate(rows: list[tuple[int, int, float]]) -> None:
    delays = came(rows)
    one = np.zeros(len(strata_of(came([(5 * DAY_MS, 1, 0.5)]))), np.int64)
    curve = curve_of(one, WINDOW_MS, *steps_of(delays, one))
    assert curve.shares[0] == pytest.approx(naive_shares(rows, EDGES_MS.tolist()), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(0, 60))
def test_counts_of_parts_add_up_to_those_of_the_whole(rows: list[tuple[int, int, float]], cut: int) -> None:
    whole, parts = came(rows), Delays.joined([came(part) for part in (rows[:cut], rows[cut:]) if part])
    stratum = np.zeros_like(strata_of(came([(5 * DAY_MS, 1, 0.5)])))
    for one, other in zip(steps_of(whole, stratum), steps_of(parts, stratum), strict=True):
        assert np.array_equal(one, other)


def simulated(seed: int, *, factor: float = 1.0, days: int = 16, per_day: int = 1_500, changed: int = 13) -> Delays:
    """Conversions of `days` days, the slow ones `factor` times slower from day `changed` on; now is the end."""
    rng = np.random.default_rng(seed)
    n = days * per_day
    time_ms = np.sort(rng.integers(0, days * DAY_MS, n))
    slow = rng.random(n) < 0.5
    mean_ms = np.where(slow, np.where(time_ms >= changed * DAY_MS, factor, 1.0) * DAY_MS, DAY_MS / 20)
    delay_ms = np.maximum(rng.exponential(mean_ms), 1.0).astype(np.int64)
    seen = (delay_ms < WINDOW_MS) & (time_ms + delay_ms <= days * DAY_MS)
    closed = time_ms[seen] + WINDOW_MS <= days * DAY_MS
    return Delays.of(time_ms[seen], rng.uniform(0.1, 0.9, n)[seen], delay_ms[seen], closed, days * DAY_MS)


def law(age_ms: NDArray[np.int64]) -> NDArray[np.float64]:
    def come(at_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(1.0 - 0.5 * np.exp(-at_ms / DAY_MS) - 0.5 * np.exp(-20.0 * at_ms / DAY_MS))

    return np.asarray(come(age_ms.astype(np.float64)) / come(np.array([float(WINDOW_MS)])))


def test_curve_follows_the_law_of_the_delays_at_any_age() -> None:
    curve = learn(simulated(1), WINDOW_MS)
    assert curve is not None
    ages = np.array([DAY_MS // 12, DAY_MS // 2, DAY_MS, 2 * DAY_MS, 3 * DAY_MS, WINDOW_MS, 9 * DAY_MS])
    found = curve.at(cell_of(np.full(len(ages), 0.5)), 20 * DAY_MS - ages, 20 * DAY_MS).share
    assert found == pytest.approx(np.minimum(law(ages), 1.0), abs=0.03)
    assert found[-2:].tolist() == [1.0, 1.0]


def test_without_a_closed_window_nothing_is_known_of_the_delays() -> None:
    delays = simulated(1, days=3)
    assert not (delays.exposed == STEPS).any()
    assert learn(delays, WINDOW_MS) is None
    assert find_drift(delays, WINDOW_MS) is None


@pytest.mark.parametrize("seed", range(8))
def test_delays_that_stay_raise_nothing(seed: int) -> None:
    assert find_drift(simulated(seed), WINDOW_MS) is None


@pytest.mark.parametrize("seed", range(4))
def test_slower_outcomes_are_found_with_the_day_since_when_and_corrected_for(seed: int) -> None:
    delays = simulated(seed, factor=2.5, per_day=8_000)
    drift = find_drift(delays, WINDOW_MS)
    assert isinstance(drift, DelayDrift)
    assert drift.later
    assert abs(drift.since_ms // DAY_MS - 13) <= 1
    older = learn(delays.before(13), WINDOW_MS)
    assert older is not None
    # By the age of 2 days 0.73 of the new outcomes have come, where 0.94 of the old had.
    cell, age_ms = cell_of(np.array([0.5])), np.array([2 * DAY_MS])
    now_ms = 16 * DAY_MS
    truth = (1.0 - 0.5 * np.exp(-0.8)) / (1.0 - 0.5 * np.exp(-1.6))
    believed, found = (curve.at(cell, now_ms - age_ms, now_ms).share[0] for curve in (older, drift.curve))
    assert abs(found - truth) < 0.5 * abs(believed - truth)
    before = drift.curve.at(cell, np.array([12 * DAY_MS]), 14 * DAY_MS).share[0]
    assert before == pytest.approx(law(age_ms)[0], abs=0.03)
