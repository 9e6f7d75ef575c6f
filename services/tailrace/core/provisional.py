"""Metrics of a window whose labels are still coming: each outcome that has come stands for those still on their way.

An outcome that came by an age at which the share F of all outcomes has come is counted 1/F times (inverse
probability weighting, Horvitz and Thompson 1952). Where the absence of an outcome means a negative label, the
row counts 1/F as positive and 1 - 1/F as negative; every loss per row is linear in that weight. Where absence
means nothing, outcomes of either class are weighted by the delays of their own class.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.quality import Reading
from tailrace.core.influence import Influence, influences, interval
from tailrace.core.label_delay import EDGES_MS, LEAST_SHARE, Aged, DelayCurve
from tailrace.core.metrics import metrics_of_counts
from tailrace.core.scoring import BINS

LEAST_EFFECTIVE = 20.0
"""Effective number of positive labels below which no reading is given: its interval would be a guess, too."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Histogram(NamedTuple):
    """Labels by score: ascending grid positions, labels and positive labels at each; int64 (k,) all."""

    bins: Ints
    n: Ints
    positives: Ints


class Came(NamedTuple):
    """Outcomes that have come of predictions still open, as columns of n in an order that depends on nothing else.

    `bins` int64, grid positions; `positive` bool; `aged`, how much of the outcomes of their class has come at their
    age and score; shares of `LEAST_SHARE` or more.
    """

    bins: Ints
    positive: NDArray[np.bool_]
    aged: Aged


def provisional(
    final: Histogram,
    unanswered: Histogram,
    came: Came,
    curves: dict[bool, DelayCurve],
    *,
    by_absence: bool,
    threshold: float,
) -> Reading:
    """Reads a window before its labels are all there.

    Args:
        final: Labels of its closed predictions.
        unanswered: `n` counts its open predictions that are old enough, with and without outcome; `positives` is
            not looked at. Used where the absence of an outcome means a negative label.
        came: Outcomes of its open predictions.
        curves: Delays of the positive, and where absence means nothing of the negative outcomes, by class.
        by_absence: Whether a prediction whose window closes without outcome becomes negative.
        threshold: Decisions are positive from this score on.

    Returns:
        Metrics with the intervals in which their final values lie; none, and why, where too little has come.
    """
    weight = 1.0 / came.aged.share
    bins, n, positives = _mass(final, unanswered, came, weight, by_absence)
    squares = final.positives.sum() + (weight[came.positive] ** 2).sum()
    hits = float(positives.sum())
    effective = hits**2 / float(squares) if squares else 0.0
    arrived = (float(final.n.sum()) + len(came.bins)) / max(float(n.sum()), 1e-12)
    if by_absence:
        arrived = (float(final.positives.sum()) + float(came.positive.sum())) / max(hits, 1e-12)
    if effective < LEAST_EFFECTIVE:
        return Reading(
            effective=effective,
            arrived=min(arrived, 1.0) if hits else None,
            withheld=f"{effective:.0f} effective positive labels, {LEAST_EFFECTIVE:.0f} needed",
        )
    values = metrics_of_counts(bins, n, positives, threshold=threshold)
    found = {}
    at = np.searchsorted(bins, came.bins)
    by = influences(bins, n, positives, threshold=threshold)
    variances = _variances(list(by.values()), at, came, weight, curves, by_absence)
    for name, variance in zip(by, variances.tolist(), strict=True):
        found[name] = interval(name, values[name], variance)
    return Reading(
        metrics=values | {"threshold": threshold},
        intervals=found,
        effective=effective,
        arrived=min(arrived, 1.0),
    )


def youngest(curve: DelayCurve) -> Ints:
    """Age in milliseconds from which `LEAST_SHARE` of the outcomes have come, by stratum: int64 (s,)."""
    found = []
    ages = np.minimum(EDGES_MS, curve.window_ms)
    for shares in curve.shares:
        step = int(np.searchsorted(shares[1:], LEAST_SHARE))
        low, high = shares[step], shares[step + 1]
        part = (LEAST_SHARE - low) / (high - low) if high > low else 1.0
        found.append(int(np.ceil(ages[step] + np.clip(part, 0.0, 1.0) * (ages[step + 1] - ages[step]))))
    return np.array(found, dtype=np.int64)


def _mass(
    final: Histogram, unanswered: Histogram, came: Came, weight: Floats, by_absence: bool
) -> tuple[Ints, Floats, Floats]:
    """Labels as they are estimated to become: positions, labels and positive labels at each."""
    n, positives = np.zeros(BINS), np.zeros(BINS)
    n[final.bins] += final.n
    positives[final.bins] += final.positives
    positives += np.bincount(came.bins, weights=weight * came.positive, minlength=BINS)
    if by_absence:
        n[unanswered.bins] += unanswered.n
    else:
        n += np.bincount(came.bins, weights=weight, minlength=BINS)
    bins = np.flatnonzero(n)
    return bins, n[bins], positives[bins]


def _variances(
    by: list[Influence], at: Ints, came: Came, weight: Floats, curves: dict[bool, DelayCurve], by_absence: bool
) -> Floats:
    """Variances of metrics around their final values: of which outcomes have come, and of the curves."""
    of_positive, of_negative = (np.stack(columns)[:, at] for columns in zip(*by, strict=True))
    if by_absence:
        of_positive, of_negative = of_positive - of_negative, np.zeros_like(of_negative)
    moved = np.where(came.positive, of_positive, of_negative)
    total = moved**2 @ ((1.0 - came.aged.share) * weight**2)
    for positive, curve in curves.items():
        mine = came.positive == positive
        total += _of_curve(curve, came.aged.taken(mine), (moved * weight)[:, mine])
    return np.asarray(total)


def _of_curve(curve: DelayCurve, aged: Aged, elasticity: Floats) -> Floats:
    """Variance that the curve's own error adds to metrics, by the delta method: float64 (m,) of (m, n).

    The logarithm of F at an age is the sum of those of its factors from that age on, which err independently.
    """
    strata, steps = curve.variances.shape
    code = aged.stratum * steps + aged.step
    order = np.argsort(code, kind="stable")
    code = code[order]
    first = np.flatnonzero(np.diff(code, prepend=-1))
    sums = np.zeros((2, len(elasticity), strata * steps))
    if first.size:
        each = np.stack([elasticity, elasticity * aged.slope])[:, :, order]
        sums[:, :, code[first]] = np.add.reduceat(each, first, axis=2)
    whole, part = sums.reshape(2, len(elasticity), strata, steps)
    below = np.cumsum(whole, axis=2) - whole
    return np.asarray((curve.variances * (below + part) ** 2).sum(axis=(1, 2)))
