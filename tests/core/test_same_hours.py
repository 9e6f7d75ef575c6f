"""Same hours of the week: taken where the training data tell them from others, else all of the training data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tailrace.core.reference import HOURS_OF_WEEK, Distribution
from tailrace.core.same_hours import covered, references

HOUR_MS = 3_600_000
MONDAY_MS = 1_736_121_600_000
WEEKS, ROWS = 3, 40
"""Rows by hour of the week, in all weeks together, are about their product."""
BINS = 20
FEATURES = 20


def known(rng: np.random.Generator, raised: Mapping[int, float]) -> Distribution:
    """Of a feature with evenly many rows in each bin, but for hours in which the share of the upper half is raised."""
    hours = []
    for hour in range(HOURS_OF_WEEK):
        rise = raised.get(hour, 0.0)
        shares = np.repeat([(1.0 - rise) / BINS, (1.0 + rise) / BINS], BINS // 2)
        hours.append([*rng.multinomial(WEEKS * ROWS, shares).tolist(), 0])
    counts = np.sum(hours, axis=0)[:-1].tolist()
    return Distribution(edges=np.arange(BINS - 1.0).tolist(), counts=counts, nulls=0, hours=hours)


def monday() -> np.ndarray:
    return covered(MONDAY_MS, MONDAY_MS + 24 * HOUR_MS)


def test_parts_of_hours_are_covered_over_that_of_which_most_is() -> None:
    season = covered(MONDAY_MS + HOUR_MS // 2, MONDAY_MS + (2 * HOURS_OF_WEEK + 2) * HOUR_MS)
    assert season[0] == pytest.approx(2.5 / 3.0)
    assert season[1] == 1.0
    assert season[2:].tolist() == pytest.approx([2.0 / 3.0] * (HOURS_OF_WEEK - 2))


def test_hours_like_all_others_are_compared_with_all_training_data() -> None:
    rng = np.random.default_rng(1)
    whole = same = 0
    for _ in range(20):
        for rows, seasonal in references([known(rng, {}) for _ in range(FEATURES)], monday(), 300, 200):
            same += seasonal
            whole += not seasonal and int(rows.sum()) == HOURS_OF_WEEK * WEEKS * ROWS
    assert same + whole == 20 * FEATURES
    assert same <= 0.2 * 20 * FEATURES  # 5 % alone, and 5 % of all looks together


def test_hours_that_one_feature_tells_apart_are_taken_for_that_one() -> None:
    rng = np.random.default_rng(2)
    mornings = dict.fromkeys(range(12), 0.2)
    known_of = [known(rng, mornings), *(known(rng, {}) for _ in range(FEATURES - 1))]
    (rows, seasonal), *others = references(known_of, monday(), 300, 200)
    assert seasonal
    assert int(rows.sum()) == 24 * WEEKS * ROWS
    assert sum(other for _, other in others) <= 3
    # The afternoon of another day is like most of the week.
    [(_, noon), *_] = references(known_of, covered(MONDAY_MS + 60 * HOUR_MS, MONDAY_MS + 66 * HOUR_MS), 300, 200)
    assert not noon


def test_season_that_no_feature_shows_alone_is_seen_in_all_together() -> None:
    rng = np.random.default_rng(3)
    weak = dict.fromkeys(range(24), 0.03)
    alone = together = 0
    for _ in range(12):
        alone += references([known(rng, weak)], monday(), 300, 200)[0][1]
        together += all(
            seasonal for _, seasonal in references([known(rng, weak) for _ in range(100)], monday(), 300, 200)
        )
    assert alone <= 8
    assert together >= 8


def test_hours_with_too_few_rows_and_references_without_hours_give_all_training_data() -> None:
    rng = np.random.default_rng(4)
    strong = known(rng, {0: 0.9})
    few = covered(MONDAY_MS, MONDAY_MS + HOUR_MS)
    older = Distribution(edges=strong.edges, counts=strong.counts, nulls=3)
    found = references([strong, older], few, 100, 200)
    assert [seasonal for _, seasonal in found] == [False, False]
    assert found[1][0].tolist() == [*strong.counts, 3]
    assert references([strong], few, 100, 100)[0][1]


def test_look_of_more_rows_than_the_training_data_have_of_its_hours_is_compared_with_these() -> None:
    rng = np.random.default_rng(5)
    features = [known(rng, {}) for _ in range(FEATURES)]
    of_hours = 24 * WEEKS * ROWS
    assert sum(seasonal for _, seasonal in references(features, monday(), of_hours, 200)) < FEATURES
    assert all(seasonal for _, seasonal in references(features, monday(), of_hours + 1, 200))
