"""Metrics over all days, each of which counts less than the next: a window without an edge.

Gama, Sebastião and Rodrigues (2013, On evaluating stream learning algorithms, section 3.2) fade label by label. Here
whole days fade: a day's counts are added over workers as integers before they are weighted, so that any number of
workers gives the same figures, labels that are late or revised count where they belong, and every metric fades alike.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tailrace.core.metrics import ScoreHistogram, metrics_of_counts
from tailrace.core.regression import metrics_of_errors
from tailrace.core.window_metrics import histogram_of
from tailrace.core.window_spec import WindowSpec

DAILY = 0.8
"""Weight of a day against the next: half of the whole lies in the last three days."""
DAYS = 21
"""Days that are looked at: older ones would weigh less than one in a hundred."""


def faded(spec: WindowSpec, days: Iterable[tuple[int, ScoreHistogram]], *, threshold: float) -> dict[str, float | None]:
    """Metrics over days, each with its age in days: 0 for the newest.

    Args:
        spec: What the histograms count, scores or errors.
        days: Ages, at most one histogram each.
        threshold: Decisions are positive from this score on.

    Returns:
        As of one window; amounts and first names are not faded.
    """
    # From the oldest on, so that sums of weights are the same whatever the order they come in.
    taken = [(DAILY**age, histogram_of(part)) for age, part in sorted(days, key=_age, reverse=True) if 0 <= age < DAYS]
    bins = np.unique(np.concatenate([np.empty(0, np.int64), *(part.bins for _, part in taken)]))
    n, positives = np.zeros((2, len(bins)))
    for weight, part in taken:
        at = np.searchsorted(bins, part.bins)
        n[at] += weight * part.n
        positives[at] += weight * part.positives
    grid = spec.grid
    if grid is None:
        return metrics_of_counts(bins, n, positives, threshold=threshold)
    return metrics_of_errors(bins, n, positives, step=grid.step, quantile=grid.quantile)


def _age(day: tuple[int, ScoreHistogram]) -> int:
    return day[0]
