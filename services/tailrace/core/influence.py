"""How metrics of a score histogram move with its counts: what an interval around any of them is made of.

The derivative of a metric by the count of positive, or of negative, labels at a score is the influence of one
such label (Hampel 1974). Summed squares of influences are the variance that another sample of the same size
would show (the infinitesimal jackknife, Jaeckel 1972; for the area under the ROC curve that of DeLong, DeLong
and Clarke-Pearson 1988), and the same derivatives carry the variance of weighted labels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.core.metrics import Masses, metrics_of_counts
from tailrace.core.scoring import score_of

INTERVALS = ("base_rate", "mean_score", "calibration", "log_loss", "brier", "roc_auc", "pr_auc", "accuracy", "recall")
"""Metrics that get an interval: those that are smooth in the counts. The calibration error is not, at 0."""
Z95 = 1.959963984540054

Floats = NDArray[np.float64]


class Influence(NamedTuple):
    """Change of a metric per positive and per negative label more at each position: float64 (k,) each."""

    positive: Floats
    negative: Floats


def influences(
    bins: NDArray[np.int64], n: Masses, positives: Masses, *, threshold: float | None
) -> dict[str, Influence]:
    """Influence on each metric of `INTERVALS` that the histogram can tell; arguments as in `metrics_of_counts`."""
    n, positives = n.astype(np.float64), positives.astype(np.float64)
    total, hits = float(n.sum()), float(positives.sum())
    if total <= 0.0:
        return {}
    scores, misses = score_of(bins), n - positives
    found: dict[str, Influence] = {}
    means = {
        "base_rate": (np.ones_like(scores), np.zeros_like(scores)),
        "mean_score": (scores, scores),
        "log_loss": (-np.log(scores), -np.log1p(-scores)),
        "brier": ((1.0 - scores) ** 2, scores**2),
    }
    if threshold is not None:
        decided = (scores >= threshold).astype(np.float64)
        means["accuracy"] = (decided, 1.0 - decided)
        if hits > 0.0:
            recall = float(positives @ decided) / hits
            found["recall"] = Influence((decided - recall) / hits, np.zeros_like(scores))
    for name, (of_positive, of_negative) in means.items():
        mean = float(positives @ of_positive + misses @ of_negative) / total
        found[name] = Influence((of_positive - mean) / total, (of_negative - mean) / total)
    if hits > 0.0:
        ratio = float(n @ scores) / hits
        found["calibration"] = Influence((scores - ratio) / hits, scores / hits)
        found["pr_auc"] = _of_average_precision(n, positives, hits)
    wrong = total - hits
    if hits > 0.0 and wrong > 0.0:
        below = np.cumsum(misses) - misses / 2.0
        above = hits - np.cumsum(positives) + positives / 2.0
        area = float(positives @ below) / (hits * wrong)
        found["roc_auc"] = Influence((below / wrong - area) / hits, (above / hits - area) / wrong)
    return found


def sampling_intervals(
    bins: NDArray[np.int64], n: Masses, positives: Masses, *, threshold: float | None
) -> dict[str, list[float]]:
    """95 % intervals of what the metrics of labels like these are in the long run; arguments as above."""
    values = metrics_of_counts(bins, n, positives, threshold=threshold)
    found = {}
    for name, by in influences(bins, n, positives, threshold=threshold).items():
        variance = float(positives @ by.positive**2 + (n - positives) @ by.negative**2)
        found[name] = interval(name, values[name], variance)
    return found


def interval(name: str, value: float | None, variance: float) -> list[float]:
    """95 % interval around a metric, within what it can be."""
    centre = value or 0.0
    half = Z95 * float(np.sqrt(max(variance, 0.0)))
    highest = np.inf if name in ("calibration", "log_loss") else 1.0
    return [max(centre - half, 0.0), float(min(centre + half, highest))]


def _of_average_precision(n: Floats, positives: Floats, hits: float) -> Influence:
    """Positions in falling order of score, as `metrics` sums them, and turned back at the end."""
    taken, found = np.cumsum(n[::-1]), np.cumsum(positives[::-1])
    gained = positives[::-1]
    average = float(gained @ (found / taken)) / hits
    behind = np.cumsum((gained * (taken - found) / taken**2)[::-1])[::-1]
    lost = np.cumsum((gained * found / taken**2)[::-1])[::-1]
    return Influence(((found / taken + behind - average) / hits)[::-1], (-lost / hits)[::-1])
