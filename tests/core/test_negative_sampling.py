"""Sampling of negatives: which rows are taken follows from their ids, and what they sum to is that of all rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core import negative_sampling
from tailrace.core.negative_sampling import LEAST_NEGATIVES, NegativeSampling
from tailrace.core.sampling import DataSet


def rows(seed: int, n: int, *, positives: float = 0.1, most: float | None = None) -> DataSet:
    """Rows numbered by their only feature; `most`: targets, up to so much for a positive."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < positives
    targets = None if most is None else np.where(labels, rng.uniform(1.0, most, n), 0.0)
    return DataSet(np.arange(n, dtype=np.float32)[:, None], labels, np.arange(n), targets, None, rng.random(n))


@given(
    answers=st.lists(st.sampled_from([0.0, 1.0, 1.25, 2.5]), min_size=1, max_size=30),
    rate=st.sampled_from([0.125, 0.25, 0.5, 1.0]),
    seed=st.integers(0, 1_000),
)
def test_rows_and_targets_are_those_of_a_loop_over_rows(answers: list[float], rate: float, seed: int) -> None:
    draws = np.random.default_rng(seed).integers(0, 64, len(answers)) / 64.0
    targets = np.array(answers)
    numbered = np.arange(len(answers), dtype=np.float32)[:, None]
    found = NegativeSampling(rate).sample(
        DataSet(numbered, targets > 0.0, np.arange(len(answers)), targets, None, draws)
    )
    expected = []
    for at, (target, draw) in enumerate(zip(answers, draws.tolist(), strict=True)):
        weight = target + rate * (1.0 - target)
        expected += [(at, target / weight)] * (math.floor(weight + draw) if rate < 1.0 else 1)
    assert found.targets is not None
    assert expected == list(zip(found.times_ms.tolist(), found.targets.tolist(), strict=True))
    assert found.rows[:, 0].tolist() == found.times_ms.tolist()


def test_all_positives_and_the_share_of_the_negatives_are_taken_each_once_in_their_order() -> None:
    data = rows(1, 100_000)
    found = NegativeSampling(0.1).sample(data)
    assert int(data.labels.sum()) == int(found.labels.sum())
    negatives = int((~data.labels).sum())
    assert abs((~found.labels).sum() - 0.1 * negatives) < 4.0 * math.sqrt(0.09 * negatives)
    assert (np.diff(found.times_ms) > 0).all()


def test_a_row_is_taken_or_not_whatever_stands_beside_it_and_a_higher_rate_takes_no_row_away() -> None:
    data, order = rows(2, 5_000), np.random.default_rng(0).permutation(5_000)
    taken = set(NegativeSampling(0.2).sample(data).times_ms.tolist())
    assert taken == set(NegativeSampling(0.2).sample(data.where(order)).times_ms.tolist())
    halves = [NegativeSampling(0.2).sample(data.where(half)) for half in (slice(0, 2_000), slice(2_000, None))]
    assert taken == {time for half in halves for time in half.times_ms.tolist()}
    assert taken < set(NegativeSampling(0.3).sample(data).times_ms.tolist())


def test_targets_above_1_sum_to_all_positives_and_the_share_of_what_is_left_of_the_negatives() -> None:
    data, rate = rows(3, 400_000, positives=0.2, most=3.0), 0.1
    found = NegativeSampling(rate).sample(data)
    assert data.targets is not None
    assert found.targets is not None
    assert found.targets.sum() == pytest.approx(data.targets.sum(), rel=0.005)
    assert (1.0 - found.targets).sum() == pytest.approx(rate * (1.0 - data.targets).sum(), rel=0.03)


def test_as_many_negatives_are_kept_as_a_fit_needs() -> None:
    few, many = rows(4, 2 * LEAST_NEGATIVES, positives=0.0), rows(4, 12 * LEAST_NEGATIVES, positives=0.0)
    assert 0.5 == NegativeSampling.of(few, 0.1).rate
    assert 0.1 == NegativeSampling.of(many, 0.1).rate
    assert NegativeSampling() == NegativeSampling.of(few.where(slice(0, LEAST_NEGATIVES)), 0.1)
    assert NegativeSampling() == NegativeSampling.of(many, 1.0)
    assert NegativeSampling() == NegativeSampling.of(many._replace(draws=None), 0.1)


def test_without_sampling_the_rows_themselves_are_fitted_to() -> None:
    data = rows(5, 100, most=2.0)
    assert NegativeSampling().sample(data) is data
    assert 0.0 == NegativeSampling().log_r


def test_log_r_turns_the_odds_of_the_sample_into_those_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negative_sampling, "LEAST_NEGATIVES", 1)
    data = rows(6, 200_000, positives=0.02)
    sampling = NegativeSampling.of(data, 0.1)
    rate, sampled = float(data.labels.mean()), float(sampling.sample(data).labels.mean())
    moved = math.log(sampled / (1.0 - sampled)) + sampling.log_r
    assert 1.0 / (1.0 + math.exp(-moved)) == pytest.approx(rate, rel=0.03)
