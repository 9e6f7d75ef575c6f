"""What the metrics of a window should be, from its scores alone: no label of it is looked at.

Confidence-based performance estimation (Garg et al. 2022, section 3; Białek et al. 2024): older labels say how
often a score was right, and the histogram of the new scores, weighted by that, is the histogram of labels to
expect. It supposes that P(label | score) has not changed: a shift of the inputs is seen, a change of the concept
is not. Each estimate is therefore compared with what the labels said in the end, and withheld where that failed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from tailrace.contracts.quality import Reading
from tailrace.core.influence import Z95, influences
from tailrace.core.metrics import metrics_of_counts
from tailrace.core.provisional import Floats, Histogram, Ints
from tailrace.core.scoring import score_of

LEAST_LABELS = 1_000
LEAST_POSITIVES = 30
"""Labels below which the scores, calibrated when the model was trained, are believed as they are."""
ALLOWANCE = {"roc_auc": 0.012, "accuracy": 0.012, "recall": 0.03, "pr_auc": 0.03}
RELATIVE_ALLOWANCE = 0.05
"""What an estimate may be wrong by besides chance: under shifts of the inputs of up to one standard deviation the
mean error is .008 to .011. Absolute by metric, and relative for all others."""
JUDGED_BY = ("base_rate", "log_loss", "roc_auc", "accuracy")
JUDGED_WINDOWS = 3
"""Newest matured windows of which one that lay outside its interval withdraws the estimate: once a concept has
turned, as many windows must be right again."""


def estimate(scores: Histogram, older: Histogram, *, threshold: float) -> Reading:
    """Estimates the metrics of predictions without their labels.

    Args:
        scores: `n` counts the predictions; `positives` is not looked at.
        older: Final labels of the same model that were known by then.
        threshold: Decisions are positive from this score on.
    """
    n = scores.n.astype(np.float64)
    if not n.sum():
        return Reading(withheld="no predictions")
    rate, level, spread = _calibrated(scores.bins, older)
    positives = n * rate
    values = metrics_of_counts(scores.bins, n, positives, threshold=threshold)
    found = {}
    for name, by in influences(scores.bins, n, positives, threshold=threshold).items():
        moved = n * (by.positive - by.negative)
        variance = float(moved**2 @ (rate * (1.0 - rate) / n))
        variance += float(np.bincount(level, weights=moved, minlength=len(spread)) ** 2 @ spread)
        value = values[name] or 0.0
        allowance = ALLOWANCE.get(name, RELATIVE_ALLOWANCE * value) if name != "mean_score" else 0.0
        half = Z95 * float(np.sqrt(variance)) + allowance
        found[name] = [max(value - half, 0.0), value + half]
    return Reading(metrics=values | {"threshold": threshold}, intervals=found, effective=float(positives.sum()))


def failed(compared: Sequence[tuple[Reading, dict[str, float | None]]]) -> str:
    """Why estimates are to be withheld, "" if they are not.

    Args:
        compared: Of the newest matured windows, the newest first: what was estimated, and the final metrics.
    """
    for reading, final in compared[:JUDGED_WINDOWS]:
        for name in JUDGED_BY:
            if _miss(name, reading, final) > 1.0:
                said, was = reading.metrics[name], final[name]
                return f"{name} of a window that has its labels by now was {was:.4f}; {said:.4f} was estimated"
    return ""


def _miss(name: str, reading: Reading, final: dict[str, float | None]) -> float:
    """Half-widths of its interval by which an estimate was wrong."""
    said, was = reading.metrics.get(name), final.get(name)
    if said is None or was is None:
        return 0.0
    # The interval may be cut at 0, but never above.
    return abs(was - said) / max(reading.intervals[name][1] - said, 1e-12)


def _calibrated(bins: Ints, older: Histogram) -> tuple[Floats, NDArray[np.int64], Floats]:
    """P(positive) at grid positions, float64 (k,), by isotonic regression of older labels on the score (Brunk 1955).

    Returns:
        The rates; the level set each position belongs to, int64 (k,); the variance of the rate of each level set.
    """
    labels, positives = float(older.n.sum()), float(older.positives.sum())
    if labels < LEAST_LABELS or min(positives, labels - positives) < LEAST_POSITIVES:
        return score_of(bins), np.zeros(len(bins), np.int64), np.zeros(1)
    n = older.n.astype(np.float64)
    fitted = isotonic_regression(older.positives / n, weights=n)
    ends = np.asarray(fitted.blocks[1:])
    size, hits = (np.add.reduceat(c.astype(np.float64), fitted.blocks[:-1]) for c in (older.n, older.positives))
    # A position that no older label had takes the level of the one below it; half a label on either side keeps
    # the variance of pure levels above 0.
    at = np.clip(np.searchsorted(older.bins, bins, side="right") - 1, 0, len(older.bins) - 1)
    level = np.searchsorted(ends, at, side="right")
    smoothed = (hits + 0.5) / (size + 1.0)
    return np.asarray(fitted.x)[at], level.astype(np.int64), smoothed * (1.0 - smoothed) / size
