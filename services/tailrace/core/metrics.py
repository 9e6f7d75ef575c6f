"""Live metrics as exact functions of integer score histograms.

Published scores lie on the grid of `core.scoring`, so a histogram over it holds all that any metric
of them can know. Histograms add: of days, of workers, of slices; a revised label takes its old count
away and adds the new one, after which every figure equals a recomputation from the final table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.quality import Quality
from tailrace.core.amounts import metrics_of_amounts
from tailrace.core.regression import metrics_of_errors
from tailrace.core.scoring import BINS, bin_of, score_of
from tailrace.core.top_predictions import mean_precision

CALIBRATION_BINS = 10

METRIC_NAMES = (
    "log_loss",
    "roc_auc",
    "pr_auc",
    "brier",
    "calibration_error",
    "calibration",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "kappa",
    "mean_score",
    "base_rate",
)
"""Keys of `Quality.metrics`, in order; a value is None where the data cannot tell."""

Counts = NDArray[np.int64]
Masses = NDArray[np.int64] | NDArray[np.float64]
"""Counts, or what they are expected or estimated to be."""


class ScoreHistogram:
    """Integer counts of final labels by grid position. Not thread-safe.

    Dense between the lowest and the highest position seen: adding a batch is two vector additions, and
    scores of one model seldom span more than a quarter of the grid. 16 bytes per position.

    Attributes:
        labelled: Number of labels counted.

    Example:
        >>> histogram = ScoreHistogram()
        >>> histogram.add(np.array([2048, 2048]), np.array([True, False]))
        >>> histogram.metrics(threshold=0.5)["base_rate"]
        0.5
    """

    __slots__ = ("_counts", "_first", "labelled")

    def __init__(self) -> None:
        self.labelled = 0
        self._first = 0
        self._counts: Counts = np.zeros((2, 0), np.int64)

    def add(self, positions: NDArray[np.integer], positive: NDArray[np.bool_], times: int = 1) -> None:  # hot path
        """Counts labels.

        Args:
            positions: int (n,), grid positions in [0, BINS).
            positive: bool (n,).
            times: -1 takes the labels away again.
        """
        if not positions.size:
            return
        self.labelled += times * len(positions)
        low, width = self._span(int(positions.min()), int(positions.max()))
        within = positions - self._first - low
        self._counts[0, low : low + width] += times * np.bincount(within, minlength=width)
        self._counts[1, low : low + width] += times * np.bincount(within[positive], minlength=width)

    def add_sparse(self, bins: Sequence[int], n: Sequence[int], positives: Sequence[int]) -> None:
        """Adds another histogram, in the form of `sparse`."""
        if not bins:
            return
        positions = np.array(bins, dtype=np.int64)
        self._span(int(positions.min()), int(positions.max()))
        self.labelled += sum(n)
        self._counts[0, positions - self._first] += np.array(n, dtype=np.int64)
        self._counts[1, positions - self._first] += np.array(positives, dtype=np.int64)

    def add_histogram(self, other: ScoreHistogram) -> None:
        """Adds another histogram."""
        width = other._counts.shape[1]
        if width:
            low, _ = self._span(other._first, other._first + width - 1)
            self._counts[:, low : low + width] += other._counts
            self.labelled += other.labelled

    def sparse(self) -> tuple[list[int], list[int], list[int]]:
        """Grid positions in ascending order, labels and positive labels at each."""
        bins, n, positives = self._columns()
        return bins.tolist(), n.tolist(), positives.tolist()

    def dense(self) -> tuple[int, Counts]:
        """The first position counted, and int64 (2, k) labels and positive labels from there on: to be read only."""
        return self._first, self._counts

    def metrics(self, *, threshold: float | None) -> dict[str, float | None]:
        """Every metric of `METRIC_NAMES`; see `metrics_of_counts`."""
        return metrics_of_counts(*self._columns(), threshold=threshold)

    def _columns(self) -> tuple[Counts, Counts, Counts]:
        used = np.flatnonzero(self._counts[0])
        return used + self._first, self._counts[0, used], self._counts[1, used]

    def _span(self, lowest: int, highest: int) -> tuple[int, int]:
        """Makes room; gives the place of `lowest` among the counts, and the number of positions to `highest`."""
        width = self._counts.shape[1]
        if not width:
            self._first, self._counts = lowest, np.zeros((2, highest - lowest + 1), np.int64)
        elif lowest < self._first or highest >= self._first + width:
            before = max(self._first - lowest, 0)
            after = max(highest + 1 - self._first - width, 0)
            self._counts = np.pad(self._counts, ((0, 0), (before, after)))
            self._first -= before
        return lowest - self._first, highest - lowest + 1


def metrics_of(scores: NDArray[np.floating], labels: NDArray[np.generic], threshold: float) -> dict[str, float | None]:
    """Metrics of scores as they would be published, that is, rounded to the grid.

    Args:
        scores: float (n,), probabilities in [0, 1] without NaN.
        labels: bool, int or float (n,), 0 or 1 each; or more than 1, where a positive label stands for others still
            to come, which are taken away from the negative ones.
        threshold: Decisions are positive from this score on.

    Returns:
        Every name of `METRIC_NAMES`; None where the data cannot tell.

    Raises:
        ValueError: lengths differ, a score is no probability, or a label is not 0, 1 or more.
    """
    truth = np.asarray(labels, dtype=np.float64).reshape(-1)
    flat = np.asarray(scores, dtype=np.float64).reshape(-1)
    if flat.shape != truth.shape or not bool(np.all((truth == 0.0) | (truth >= 1.0))):
        raise ValueError(
            f"needs one label, 0 or 1, or what one stands for, per score; got {truth.shape[0]} for {flat.shape[0]}"
        )
    positions = bin_of(flat)
    n = np.bincount(positions, minlength=BINS).astype(np.int64)
    positives: Masses = np.bincount(positions, weights=truth, minlength=BINS)
    if bool(np.all((truth == 0.0) | (truth == 1.0))):
        positives = positives.astype(np.int64)
    bins = np.flatnonzero(n).astype(np.int64)
    return metrics_of_counts(bins, n[bins], positives[bins], threshold=threshold)


def merge(qualities: Iterable[Quality], *, threshold: float | None = None) -> dict[str, float | None]:
    """Metrics over several windows, slices or workers together.

    Args:
        qualities: Records whose histograms are disjoint; at most one per key.
        threshold: That of the use case. None takes it from `metrics["threshold"]` of the records; where
            they lack it or disagree, the metrics of decisions are None. Records of a regression say their own step.
    """
    taken = list(qualities)
    total = ScoreHistogram()
    thresholds: set[float | None] = set()
    steps: set[tuple[float, float | None]] = set()
    for quality in taken:
        total.add_sparse(quality.bins, quality.n, quality.positives)
        thresholds.add(quality.metrics.get("threshold"))
        step = quality.metrics.get("error_step")
        if step is not None:
            steps.add((step, quality.metrics.get("quantile")))
    if len(steps) == 1:
        step, quantile = steps.pop()
        return metrics_of_errors(*total._columns(), step=step, quantile=quantile)
    if threshold is None and len(thresholds) == 1:
        threshold = thresholds.pop()
    return total.metrics(threshold=threshold) | _merged_extras(taken, threshold)


def _merged_extras(qualities: Sequence[Quality], threshold: float | None) -> dict[str, float | None]:
    """Metrics of amounts and of the first predictions of each day, where records hold any."""
    found: dict[str, float | None] = {}
    if any(quality.amounts for quality in qualities):
        at_stake = ScoreHistogram()
        for quality in qualities:
            if quality.amounts:
                at_stake.add_sparse(quality.bins, quality.amounts, quality.positive_amounts)
        found |= metrics_of_amounts(*at_stake._columns(), threshold=threshold)
    sizes = {(quality.top_size, quality.top_distinct) for quality in qualities if quality.top_size}
    if len(sizes) == 1:
        size, distinct = sizes.pop()
        lists = [(quality.window_start_ms, quality.top) for quality in qualities if quality.top_size]
        found["top_precision"] = mean_precision(lists, size, distinct=distinct)
    return found


def metrics_of_counts(
    bins: Counts, n: Masses, positives: Masses, *, threshold: float | None
) -> dict[str, float | None]:
    """Metrics of a score histogram.

    Args:
        bins: int64 (k,), grid positions, ascending, distinct.
        n: int64 (k,), labels at each, > 0; or float64 (k,), where labels are weighted or expected.
        positives: (k,) of the same kind, positive labels at each. As weights they may exceed `n` at a position.
        threshold: Decisions are positive from this score on; None leaves the metrics of decisions None.
    """
    total, hits = n.sum().item(), positives.sum().item()
    result: dict[str, float | None] = dict.fromkeys(METRIC_NAMES)
    if total <= 0:
        return result
    scores = score_of(bins)
    misses = n - positives
    predicted = float(n @ scores)
    losses = -(positives @ np.log(scores)) - (misses @ np.log1p(-scores))
    result["log_loss"] = float(losses) / total
    result["brier"] = float(positives @ (1.0 - scores) ** 2 + misses @ scores**2) / total
    result["calibration_error"] = _calibration_error(scores, n, positives) / total
    result["mean_score"] = predicted / total
    result["base_rate"] = hits / total
    if hits > 0:
        result["calibration"] = predicted / hits
        result["pr_auc"] = _average_precision(n, positives)
    if 0 < hits < total:
        below = np.cumsum(misses) - misses
        result["roc_auc"] = float(positives @ (below + misses / 2.0)) / (hits * (total - hits))
    if threshold is not None:
        result.update(_of_decisions(scores >= threshold, n, positives))
    return result


def _calibration_error(scores: NDArray[np.float64], n: Masses, positives: Masses) -> float:
    """Sum over ten equal bins of |predicted - observed| positives."""
    cells = np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.bincount(cells, weights=n * scores - positives, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum())


def _average_precision(n: Masses, positives: Masses) -> float:
    """Sum of precision times gained recall over falling thresholds, as scikit-learn defines it."""
    taken, found = np.cumsum(n[::-1]), np.cumsum(positives[::-1])
    return float(positives[::-1] @ (found / taken)) / float(found[-1])


def _of_decisions(decided: NDArray[np.bool_], n: Masses, positives: Masses) -> dict[str, float | None]:
    total, hits = n.sum().item(), positives.sum().item()
    alarms, right = n[decided].sum().item(), positives[decided].sum().item()
    wrong = alarms - right
    missed = hits - right
    accuracy = (total - wrong - missed) / total
    by_chance = (alarms * hits + (total - alarms) * (total - hits)) / total**2
    return {
        "accuracy": accuracy,
        "precision": right / alarms if alarms else None,
        "recall": right / hits if hits else None,
        "f1": 2 * right / (alarms + hits) if alarms + hits else None,
        # How far decisions are better than as many at random (Cohen 1960).
        "kappa": (accuracy - by_chance) / (1.0 - by_chance) if by_chance < 1.0 else None,
    }
