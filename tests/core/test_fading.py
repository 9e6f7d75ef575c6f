"""Figures in which old labels fade: against the recurrences, and against the classifier that repeats the last label."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from tailrace.core.fading import DAILY, DAYS, faded
from tailrace.core.metrics import ScoreHistogram
from tailrace.core.prequential import FADING, LEAST_LABELS, Prequential
from tailrace.core.regression import ValueGrid
from tailrace.core.scoring import bin_of, on_grid
from tailrace.core.window_spec import PLAIN, WindowSpec

DECISIONS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def naive(rows: list[tuple[bool, bool]]) -> tuple[float, float, float]:
    """Weight, wrong decisions and changes of the label by the recurrence B <- 1 + a B."""
    weight = wrong = changed = 0.0
    for (_, before), (decided, now) in pairwise(rows):
        weight = 1.0 + FADING * weight
        wrong = float(decided != now) + FADING * wrong
        changed = float(before != now) + FADING * changed
    return weight, wrong, changed


@settings(max_examples=80, deadline=None)
@given(DECISIONS, st.integers(1, 9))
def test_fading_sums_follow_the_recurrence_however_labels_are_batched_and_stored(
    rows: list[tuple[bool, bool]], size: int
) -> None:
    state = Prequential()
    for start in range(0, len(rows), size):
        batch = np.array(rows[start : start + size])
        state.feed(batch[:, 0], batch[:, 1])
        state = msgspec.json.decode(msgspec.json.encode(state), type=Prequential)
    assert (state.weight, state.wrong, state.changed) == pytest.approx(naive(rows), abs=1e-9)
    assert state.labels == len(rows)


def test_a_model_that_says_the_last_label_gains_nothing_over_it() -> None:
    rng = np.random.default_rng(1)
    labels = np.cumsum(rng.random(4_000) < 0.1) % 2 == 1  # long runs
    last = np.concatenate([[False], labels[:-1]])
    state = Prequential()
    state.feed(last, labels)
    found = state.metrics()
    assert (found["fading_accuracy"] or 0.0) > 0.85
    assert found["kappa_temporal"] == pytest.approx(0.0, abs=1e-12)
    worse = Prequential()
    worse.feed(np.where(rng.random(4_000) < 0.2, ~labels, labels), labels)
    assert (worse.metrics()["kappa_temporal"] or 0.0) < 0.0


def test_nothing_is_said_of_a_handful_of_labels() -> None:
    state = Prequential()
    state.feed(np.ones(LEAST_LABELS - 1, np.bool_), np.ones(LEAST_LABELS - 1, np.bool_))
    assert state.metrics() == {}
    state.feed(np.ones(1, np.bool_), np.ones(1, np.bool_))
    assert state.metrics() == {"fading_accuracy": 1.0, "no_change_accuracy": 1.0, "kappa_temporal": None}


def test_faded_days_are_those_of_scikit_learn_on_weighted_rows_whatever_their_order() -> None:
    rng = np.random.default_rng(3)
    days, rows = [], []
    for age in range(DAYS + 3):
        scores = on_grid(rng.random(300))
        labels = rng.random(300) < scores ** (1.0 + age / 10.0)
        histogram = ScoreHistogram()
        histogram.add(bin_of(scores), labels)
        days.append((age, histogram))
        if age < DAYS:
            rows.append((scores, labels, np.full(300, DAILY**age)))
    scores, labels, weights = (np.concatenate([row[at] for row in rows]) for at in range(3))
    found = faded(PLAIN, days, threshold=0.5)
    assert found["log_loss"] == pytest.approx(log_loss(labels, scores, sample_weight=weights), abs=1e-9)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-9)
    assert faded(PLAIN, days[::-1], threshold=0.5) == found


def test_errors_fade_alike() -> None:
    days = []
    for age, errors in enumerate(([1, -1], [3, 3, 3])):
        histogram = ScoreHistogram()
        histogram.add(np.array(errors), np.array(errors) > 0)
        days.append((age, histogram))
    found = faded(WindowSpec(grid=ValueGrid(0.0, 4096.0)), days, threshold=0.0)
    assert found["mae"] == pytest.approx((2 * 1 + DAILY * 9) / (2 + DAILY * 3), abs=1e-12)
