from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load_tests.latency import LONGEST_US, Latencies

SECONDS = st.lists(st.floats(1e-6, 100), min_size=1, max_size=200)
QUANTILES = (0.5, 0.9, 0.99, 1.0)


def recorded(seconds: list[float]) -> Latencies:
    latencies = Latencies()
    for value in seconds:
        latencies.record(value)
    return latencies


@settings(deadline=None)
@given(parts=st.lists(SECONDS, min_size=1, max_size=5))
def test_merged_histograms_equal_the_histogram_of_everything(parts: list[list[float]]) -> None:
    merged = Latencies.merged(recorded(part) for part in parts)
    whole = recorded([value for part in parts for value in part])
    assert whole.count == merged.count
    assert [whole.quantile_ms(q) for q in QUANTILES] == [merged.quantile_ms(q) for q in QUANTILES]


@settings(deadline=None)
@given(seconds=SECONDS)
def test_a_histogram_survives_the_way_to_another_process(seconds: list[float]) -> None:
    here = recorded(seconds)
    there = Latencies(here.encode())
    assert here.count == there.count
    assert [here.quantile_ms(q) for q in QUANTILES] == [there.quantile_ms(q) for q in QUANTILES]


@settings(deadline=None)  # the first example pays for the library's tables
@given(seconds=SECONDS)
def test_quantiles_keep_three_digits_of_the_sorted_values(seconds: list[float]) -> None:
    latencies = recorded(seconds)
    ordered = np.sort(seconds)
    for q in QUANTILES:
        # HDR says the value whose rank is nearest to q * n, counted from 1, at the upper end of its bucket.
        rank = max(int(q * len(ordered) + 0.5), 1)
        assert latencies.quantile_ms(q) == pytest.approx(1e3 * ordered[rank - 1], rel=2e-3, abs=2e-3)


def test_merging_leaves_the_parts_as_they_were() -> None:
    part = recorded([0.1, 0.2])
    Latencies.merged([part, recorded([5.0])])
    assert 2 == part.count
    assert part.quantile_ms(1.0) < 201


def test_an_empty_histogram_has_no_quantile() -> None:
    assert math.isnan(Latencies().quantile_ms(0.5))


def test_latencies_beyond_the_range_are_counted_at_its_ends() -> None:
    latencies = recorded([-1.0, 1e9])
    assert 2 == latencies.count
    assert 1e-3 == latencies.quantile_ms(0.0)
    assert latencies.quantile_ms(1.0) == pytest.approx(LONGEST_US / 1e3, rel=1e-3)
