"""Metrics in money: every label counts as much as was at stake.

Amounts are whole hundredths of the currency, so that they add up and are taken back exactly, like labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tailrace.core.scoring import score_of

HUNDREDTHS = 100
MOST = 1e12
"""What counts as the largest amount: ninety thousand of them still add up without error."""
AMOUNT_METRICS = (
    "amount_caught",
    "amount_missed",
    "amount_false_alarms",
    "amount_recall",
    "amount_precision",
    "amount_roc_auc",
)
"""Keys of `Quality.metrics` where an amount is declared; the first three in the currency of the amounts."""

Counts = NDArray[np.int64]


def hundredths(amounts: NDArray[np.floating]) -> Counts:
    """Amounts, float (n,), as int64 (n,) hundredths; what is missing (NaN) or negative is nothing."""
    known = np.clip(np.nan_to_num(np.asarray(amounts, dtype=np.float64), nan=0.0), 0.0, MOST)
    return np.asarray(np.rint(known * HUNDREDTHS), dtype=np.int64)


def metrics_of_amounts(
    bins: Counts, n: Counts, positives: Counts, *, threshold: float | None
) -> dict[str, float | None]:
    """Metrics of amounts by score.

    Args:
        bins: int64 (k,), grid positions, ascending, distinct.
        n: int64 (k,), hundredths at stake at each.
        positives: int64 (k,), those of them with a positive label.
        threshold: Decisions are positive from this score on; None leaves all but the area under the curve None.

    Returns:
        Every name of `AMOUNT_METRICS`: of positive labels what was decided positive and what was not, of negative
        ones what was decided positive; shares of these; and the probability that a unit of money with a positive
        label scores higher than one with a negative label.
    """
    result: dict[str, float | None] = dict.fromkeys(AMOUNT_METRICS)
    total, hits = int(n.sum()), int(positives.sum())
    scores, misses = score_of(bins), n - positives
    if 0 < hits < total:
        # Whole numbers to the end: their products pass what a double holds exactly.
        below = np.cumsum(misses) - misses
        pairs = sum(
            p * (2 * b + m) for p, b, m in zip(positives.tolist(), below.tolist(), misses.tolist(), strict=True)
        )
        result["amount_roc_auc"] = pairs / (2 * hits * (total - hits))
    if threshold is None or not len(bins):
        return result
    decided = scores >= threshold
    caught, alarmed = int(positives[decided].sum()), int(n[decided].sum())
    result["amount_caught"] = caught / HUNDREDTHS
    result["amount_missed"] = (hits - caught) / HUNDREDTHS
    result["amount_false_alarms"] = (alarmed - caught) / HUNDREDTHS
    result["amount_recall"] = caught / hits if hits else None
    result["amount_precision"] = caught / alarmed if alarmed else None
    return result
