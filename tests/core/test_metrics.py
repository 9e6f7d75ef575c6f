"""Metrics from histograms against scikit-learn, and the laws of adding."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from tailrace.core.metrics import METRIC_NAMES, ScoreHistogram, metrics_of
from tailrace.core.scoring import bin_of, on_grid

cases = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=60).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@settings(max_examples=60, deadline=None)
@given(cases, st.floats(0.05, 0.95))
def test_every_metric_equals_scikit_learn_on_published_scores(rows: list[tuple[float, bool]], threshold: float) -> None:
    scores = on_grid(np.array([score for score, _ in rows]))
    labels = np.array([label for _, label in rows])
    decided = scores >= threshold
    expected = {
        "log_loss": sk.log_loss(labels, scores),
        "roc_auc": sk.roc_auc_score(labels, scores),
        "pr_auc": sk.average_precision_score(labels, scores),
        "brier": sk.brier_score_loss(labels, scores),
        "accuracy": sk.accuracy_score(labels, decided),
        "recall": sk.recall_score(labels, decided),
        "f1": sk.f1_score(labels, decided),
        "mean_score": scores.mean(),
        "base_rate": labels.mean(),
        "calibration": scores.sum() / labels.sum(),
    }
    found = metrics_of(scores, labels, threshold)
    assert {name: pytest.approx(value, abs=1e-9) for name, value in expected.items()} == {
        name: found[name] for name in expected
    }
    assert found["kappa"] == pytest.approx(sk.cohen_kappa_score(labels, decided), abs=1e-9)
    precision = sk.precision_score(labels, decided) if decided.any() else None
    assert found["precision"] == (precision if precision is None else pytest.approx(precision, abs=1e-9))


@settings(max_examples=60, deadline=None)
@given(cases)
def test_calibration_error_equals_the_naive_sum_over_ten_bins(
    rows: list[tuple[float, bool]],
) -> None:
    scores = on_grid(np.array([score for score, _ in rows]))
    labels = np.array([label for _, label in rows], dtype=float)
    naive = 0.0
    for cell in range(10):
        inside = np.minimum(np.floor(scores * 10), 9) == cell
        if inside.any():
            naive += inside.mean() * abs(scores[inside].mean() - labels[inside].mean())
    assert metrics_of(scores, labels, 0.5)["calibration_error"] == pytest.approx(naive, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(cases, cases)
def test_sum_of_histograms_equals_histogram_of_all_and_subtraction_undoes_it(
    left: list[tuple[float, bool]], right: list[tuple[float, bool]]
) -> None:
    total, part = ScoreHistogram(), ScoreHistogram()
    for rows, target in ((left, total), (right, part)):
        target.add(*_columns(rows))
    alone = total.sparse()
    total.add_sparse(*part.sparse())
    scores, labels = zip(*(left + right), strict=True)
    assert metrics_of(np.array(scores), np.array(labels), 0.5) == total.metrics(threshold=0.5)
    total.add(*_columns(right), times=-1)
    assert alone == total.sparse()
    assert len(left) == total.labelled
    total.add_histogram(part)
    assert metrics_of(np.array(scores), np.array(labels), 0.5) == total.metrics(threshold=0.5)


@given(st.lists(st.tuples(st.integers(0, 4_096), st.booleans()), max_size=40), st.integers(0, 39))
def test_histogram_of_batches_equals_a_counter_of_labels(labels: list[tuple[int, bool]], cut: int) -> None:
    histogram = ScoreHistogram()
    for rows in (labels[:cut], labels[cut:]):
        histogram.add(np.array([p for p, _ in rows], dtype=np.int64), np.array([y for _, y in rows], dtype=np.bool_))
    n, hits = Counter(p for p, _ in labels), Counter(p for p, y in labels if y)
    bins = sorted(n)
    assert (bins, [n[b] for b in bins], [hits[b] for b in bins]) == histogram.sparse()


def _columns(rows: list[tuple[float, bool]]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    return bin_of(np.array([score for score, _ in rows])), np.array([label for _, label in rows])


def test_metrics_without_data_are_none() -> None:
    assert dict.fromkeys(METRIC_NAMES) == ScoreHistogram().metrics(threshold=0.5)


def test_ranking_metrics_of_one_class_are_none() -> None:
    found = metrics_of(np.array([0.2, 0.7]), np.array([0, 0]), 0.5)
    assert (found["roc_auc"], found["pr_auc"], found["recall"]) == (None, None, None)


def test_label_that_is_neither_0_nor_1_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        metrics_of(np.array([0.2]), np.array([0.5]), 0.5)
