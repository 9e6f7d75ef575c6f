"""Whether outcomes come later, or sooner, than they did, since when, and by which curve they come now.

A test on the steps that `label_delay` counts looks at every day on which the delays may have changed: the
stratified log-rank test (Mantel 1966) on truncated data (Lagakos, Barraj and De Gruttola 1988, section 4), beside
itself with weights that grow with the delay, since among the outcomes that have come at all those of longer delays
may at first look like sooner ones.

Predictions since a change have seen no delay longer than they are old. What they cannot tell yet is what the older
delays say once the slow among them are stretched so as to fit what they do tell: an accelerated failure time (Cox
and Oakes 1984, section 5.2) of the slow outcomes, which are all outcomes where the two kinds part at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from tailrace.core.label_delay import (
    DAY_MS,
    EDGES_MS,
    LEAST_SHARE,
    STEPS,
    DelayCurve,
    Delays,
    by_day,
    curve_of,
    shares_of,
    steps_of,
    strata_of,
    tells,
)

ALARM_STATISTIC = 36.0
"""Chi-square with 2 degrees from which delays differ: chance passes it once in 66 million looks, of which there are
24 for each of some thirty days of change in every day of a service."""
MATERIAL = 0.02
"""Relative error of the weights below which a change of the delays is of no consequence."""
LEAST_AT_RISK = 200
"""Outcomes from which predictions since a change speak for themselves at a step; below, the stretched curve does."""
STARTS = (np.array([-3.0, 0.5]), np.array([-8.0, 0.5]))
"""Where the fit begins: slow and fast part at a twentieth of the attribution window, or near 0."""
STEEPNESS = 3.0
"""How sharply slow outcomes part from fast ones: the logarithm of the ratio of their mean delays, here 20, where both
are exponential. From 2 to 5 the rate three days after a change moved by 2 %."""
LEAST_SINCE = 500
"""Outcomes since a change below which nothing is fitted to them, and no change is called."""

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


class DelayDrift(NamedTuple):
    """A change of the delays.

    `since_ms` is the start of the first day of predictions whose outcomes come otherwise; `statistic` the test's;
    `size` by how much, relative and on average, the older delays misjudge how many outcomes are still on their way;
    `later` whether outcomes come later than before. `curve` is how they come now.
    """

    since_ms: int
    statistic: float
    size: float
    later: bool
    curve: DelayCurve


def find_drift(delays: Delays, window_ms: int) -> DelayDrift | None:
    """The most telling change of the delays; None where chance explains it, or nobody would notice.

    Args:
        delays: Outcomes of one class.
        window_ms: Age from which nothing more counts.
    """
    if not tells(delays):
        return None
    stratum = strata_of(delays)
    days, events, at_risk = by_day(delays, stratum)
    if len(days) < 2:
        return None
    statistic = _statistics(events, at_risk)
    at = int(np.argmax(statistic))
    since_day = int(days[at + 1])
    before, new = delays.before(since_day), delays.since(since_day)
    if statistic[at] < ALARM_STATISTIC or not tells(before) or new.outcomes.sum() < LEAST_SINCE:
        return None
    older = curve_of(stratum, window_ms, *steps_of(before, stratum))
    curve = _stretched(older, *steps_of(new, stratum))
    open_ = new.taken(new.exposed < STEPS)
    believed, weights = _weights(older, open_), _weights(curve, open_)
    size = float(np.abs(believed - weights).sum() / max(weights.sum(), 1e-12))
    if size < MATERIAL:
        return None
    later = _mean_delay(curve) > _mean_delay(older)
    since_ms = since_day * DAY_MS
    return DelayDrift(since_ms, float(statistic[at]), size, later, curve.after(older, since_ms))


def _statistics(events: Counts, at_risk: Counts) -> Floats:
    """The test of the days from each but the first on against those before it, float64 (d - 1,).

    Days that differ among themselves, as Sundays do, make chance wider than the test assumes: the statistic is
    divided by the mean of what single days of the older half show against that half, where that is above what chance
    makes it. The newer half is left out, or a change would hide itself.
    """
    later, later_risk = (np.cumsum(c[::-1], axis=0)[::-1][1:] for c in (events, at_risk))
    found = _against_rest(later, later_risk, events.sum(axis=0), at_risk.sum(axis=0))
    half = max(len(events) // 2, 2)
    old, old_risk = events[:half], at_risk[:half]
    single = _against_rest(old, old_risk, old.sum(axis=0), old_risk.sum(axis=0))
    return np.asarray(found / max(1.0, float(np.mean(single)) / 2.0))


def _against_rest(events: Counts, at_risk: Counts, all_events: Counts, all_risk: Counts) -> Floats:
    """Chi-square with 2 degrees of groups (g, s, STEPS) against the rest of the whole (s, STEPS): float64 (g,)."""
    whole = np.maximum(all_risk, 1).astype(np.float64)
    expected = at_risk * (all_events / whole)
    spread = expected * (1.0 - at_risk / whole) * (all_risk - all_events) / np.maximum(whole - 1.0, 1.0)
    excess, variance = (events - expected).sum(axis=1), spread.sum(axis=1)
    total = np.maximum(variance.sum(axis=1), 1e-12)
    step = np.arange(STEPS, dtype=np.float64)
    # Centred by variance, the second weight makes the two sums uncorrelated: their squares add up.
    centred = step - (variance @ step / total)[:, None]
    trend = np.maximum((variance * centred**2).sum(axis=1), 1e-12)
    return np.asarray(excess.sum(axis=1) ** 2 / total + (excess * centred).sum(axis=1) ** 2 / trend)


def _stretched(older: DelayCurve, events: Counts, at_risk: Counts) -> DelayCurve:
    """The curve of what has come since a change, and beyond that the older one stretched to fit it.

    Maximum likelihood of the two parameters: a step's outcomes are binomial among those at risk of it.
    """
    # Where hardly any of the older outcomes had come, their few cannot tell a fit from another.
    used = (older.shares[:, :-1] >= 2.0 * LEAST_SHARE) & (EDGES_MS[:-1] < older.window_ms)
    late_ones, others = events[used], (at_risk - events)[used]

    def loss(parameters: Floats) -> float:
        late = np.clip(1.0 - _factors(older, parameters)[used], 1e-9, 1.0 - 1e-9)
        return -float(late_ones @ np.log(late) + others @ np.log1p(-late))

    best = min((_minimum(loss, start) for start in STARTS), key=loss)
    own = curve_of(older.stratum, older.window_ms, events, at_risk)
    told = at_risk >= LEAST_AT_RISK
    kept = np.where(told, own.kept, _factors(older, best))
    variances = np.where(told, own.variances, 0.0)
    # What the stretch itself may be wrong by, at the first step of each stratum that it speaks for.
    first = STEPS - np.argmax(told[:, ::-1], axis=1)
    rows = np.flatnonzero(told.any(axis=1) & (first < STEPS))
    variances[rows, first[rows]] = _tail_variances(older, best, loss)[rows, first[rows]]
    return DelayCurve(older.stratum, older.window_ms, shares_of(kept), kept, variances)


def _minimum(loss: Callable[[Floats], float], start: Floats) -> Floats:
    simplex = start + np.array([[0.0, 0.0], [-1.0, 0.0], [0.0, 0.5]])
    found = minimize(
        loss, start, method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-2}
    )
    return np.asarray(found.x)


def _factors(older: DelayCurve, parameters: Floats) -> Floats:
    """Factors of the older curve once its slow outcomes are stretched, float64 (s, STEPS).

    Parameters are the logarithms of the delay at which an outcome is as likely slow as fast, in attribution windows,
    and of the factor by which slow ones are stretched.
    """
    middle = older.window_ms * float(np.exp(np.clip(parameters[0], -12.0, 0.0)))
    factor = float(np.exp(np.clip(parameters[1], -4.0, 4.0)))
    edges = np.minimum(EDGES_MS, older.window_ms).astype(np.float64)
    is_slow = expit(STEEPNESS * ((edges[1:] + edges[:-1]) / 2.0 / middle - 1.0))
    slow = np.cumsum(np.diff(older.shares, axis=1) * is_slow, axis=1)
    slow = np.concatenate([np.zeros((len(slow), 1)), slow], axis=1)
    used = int(np.searchsorted(edges, older.window_ms))
    place = np.interp(edges / factor, edges[: used + 1], np.arange(used + 1.0))
    low = np.minimum(place.astype(np.int64), STEPS - 1)
    part = place - low
    shares = older.shares - slow + slow[:, low] * (1.0 - part) + slow[:, low + 1] * part
    return np.asarray(np.clip(shares[:, :-1] / np.maximum(shares[:, 1:], 1e-12), 0.0, 1.0))


def _tail_variances(older: DelayCurve, best: Floats, loss: Callable[[Floats], float]) -> Floats:
    """Variance of the logarithm of F at the lower edge of each step, float64 (s, STEPS), by the delta method."""
    width = 0.05
    ways = width * np.eye(2)
    curvature = np.empty((2, 2))
    for i, one in enumerate(ways):
        for j, other in enumerate(ways):
            corners = loss(best + one + other) - loss(best + one - other)
            curvature[i, j] = (corners - loss(best - one + other) + loss(best - one - other)) / (4.0 * width**2)
    covariance = np.linalg.pinv(curvature, hermitian=True)
    logs = [
        np.log(np.maximum(shares_of(_factors(older, best + sign * one))[:, :-1], 1e-12))
        for one in ways
        for sign in (1, -1)
    ]
    slopes = np.stack([logs[0] - logs[1], logs[2] - logs[3]]) / (2.0 * width)
    return np.asarray(np.maximum(np.einsum("isk,ij,jsk->sk", slopes, covariance, slopes), 0.0))


def _weights(curve: DelayCurve, delays: Delays) -> Floats:
    """How many outcomes there will be, by a curve, where so many have come by an age."""
    share = curve.shares[curve.stratum[delays.cell], delays.exposed]
    return np.asarray(delays.outcomes / np.maximum(share, LEAST_SHARE))


def _mean_delay(curve: DelayCurve) -> float:
    """Mean delay within the attribution window, milliseconds, of all strata alike."""
    width = np.diff(np.minimum(EDGES_MS, curve.window_ms))
    return float((1.0 - curve.shares[:, 1:]).mean(axis=0) @ width)
