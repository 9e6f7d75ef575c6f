"""How late outcomes come: F(age), the share of the positive (or negative) outcomes that have come by an age.

What has come by now was truncated on the right: of a prediction's outcomes only those with a delay below its
age can be seen. The product-limit estimator for such data (Lynden-Bell 1971, section 3; Kalbfleisch and Lawless
1989, section 3) runs backwards through the delays: of the outcomes that had come by the age e[k+1], the share
that had come by e[k], among the predictions that are old enough to tell. On a grid of delays it needs counts
alone, which add up over workers and days.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.core.scoring import BINS, bin_of

DAY_MS = 86_400_000
STEPS = 105
EDGES_MS: NDArray[np.int64] = np.concatenate(
    [[0], np.rint(1_000.0 * 2.0 ** (np.arange(STEPS) / 4.0)).astype(np.int64)]
).astype(np.int64)
"""Grid of delays: 0, then from 1 s to 777 d in steps of a factor of 2 ** (1/4). Stored counts are by its numbers."""
CELL_WIDTH = 32
CELLS = (BINS - 1) // CELL_WIDTH + 1
"""Cells of the score, a quarter of a unit of log-odds each: strata are made of whole cells, so that counts of days add up."""
STRATA = 10
STRATUM_LEAST = 150
"""Strata are score quantiles of the outcomes, at most `STRATA` and of at least this many outcomes: delay depends on
the score, and with one curve for all the intervals of log loss cover too seldom (.87 to .91 instead of .95)."""
LEAST_MATURE = 50
"""Outcomes of closed predictions below which no curve is known: what has not come by any age cannot be guessed."""
LEAST_SHARE = 0.02
"""Predictions so young that less of their outcomes have come are left out: weights above 50 are noise."""


class Delays(NamedTuple):
    """Outcomes of one class that have come, as columns of m.

    `day` int64, days since the epoch of the prediction; `cell` int64 in [0, CELLS); `delay` int64 in [0, STEPS),
    e[delay] < delay <= e[delay + 1]; `exposed` int64 in [0, STEPS], the last edge that its prediction's age has
    reached, STEPS once nothing more can come; `outcomes` int64, how many alike.
    """

    day: NDArray[np.int64]
    cell: NDArray[np.int64]
    delay: NDArray[np.int64]
    exposed: NDArray[np.int64]
    outcomes: NDArray[np.int64]

    @staticmethod
    def of(
        event_time_ms: NDArray[np.int64],
        score: NDArray[np.float64],
        delay_ms: NDArray[np.int64],
        closed: NDArray[np.bool_],
        now_ms: int,
    ) -> Delays:
        """Counts outcomes that came by `now_ms`: of predictions at int64 (n,), after int64 (n,) milliseconds."""
        exposed = np.where(closed, STEPS, reached(now_ms - event_time_ms))
        # As one number each: to sort columns side by side takes a hundred times as long.
        code = (event_time_ms // DAY_MS * CELLS + cell_of(score)) * STEPS + bin_of_delay(delay_ms)
        code, outcomes = np.unique(code * (STEPS + 1) + exposed, return_counts=True)
        code, exposed = np.divmod(code, STEPS + 1)
        code, delay = np.divmod(code, STEPS)
        day, cell = np.divmod(code, CELLS)
        return Delays(day, cell, delay, exposed, outcomes)

    @staticmethod
    def joined(parts: Sequence[Delays]) -> Delays:
        """Counts one after the other."""
        return Delays._make(np.concatenate([np.empty(0, np.int64), *columns]) for columns in zip(*parts, strict=True))

    def taken(self, which: NDArray[np.bool_]) -> Delays:
        """Some of them."""
        return Delays._make(column[which] for column in self)

    def since(self, day: int) -> Delays:
        """Those of predictions from a day on."""
        return self.taken(self.day >= day)

    def before(self, day: int) -> Delays:
        """Those of predictions before a day."""
        return self.taken(self.day < day)


class DelayCurve(NamedTuple):
    """F(age) by score stratum.

    `stratum` int64 (CELLS,), the stratum of each score cell; `window_ms`, the age from which F is 1; `shares`
    float64 (s, STEPS + 1), F at the edges; `kept` float64 (s, STEPS), its factors F(e[k]) / F(e[k + 1]);
    `variances` float64 (s, STEPS), of the logarithm of each factor, by Greenwood's formula. Where the delays have
    changed, predictions before `since_ms` have strata of their own, the second half of s.
    """

    stratum: NDArray[np.int64]
    window_ms: int
    shares: NDArray[np.float64]
    kept: NDArray[np.float64]
    variances: NDArray[np.float64]
    since_ms: int = 0

    def after(self, older: DelayCurve, since_ms: int) -> DelayCurve:
        """This curve for predictions since a time, and an older one with the same strata for those before."""
        return DelayCurve(
            self.stratum,
            self.window_ms,
            np.concatenate([self.shares, older.shares]),
            np.concatenate([self.kept, older.kept]),
            np.concatenate([self.variances, older.variances]),
            since_ms,
        )

    def strata(self, cell: NDArray[np.int64], time_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """Strata of predictions with scores in cells int64 (n,), made at int64 (n,) epoch milliseconds."""
        return np.asarray(self.stratum[cell] + np.where(time_ms < self.since_ms, len(self.shares) // 2, 0))

    def at(self, cell: NDArray[np.int64], time_ms: NDArray[np.int64], now_ms: int) -> Aged:
        """F now of predictions as above."""
        edges = np.minimum(EDGES_MS, self.window_ms)
        stratum, age_ms = self.strata(cell, time_ms), now_ms - time_ms
        step = np.minimum(np.searchsorted(edges, age_ms, side="right") - 1, STEPS - 1)
        step = np.maximum(step, 0)
        width = np.maximum(edges[step + 1] - edges[step], 1)
        part = np.clip((age_ms - edges[step]) / width, 0.0, 1.0)
        kept = self.kept[stratum, step]
        within = (1.0 - part) * kept + part
        share = np.where(age_ms >= self.window_ms, 1.0, self.shares[stratum, step + 1] * within)
        slope = np.where(age_ms >= self.window_ms, 0.0, (1.0 - part) * kept / np.maximum(within, 1e-12))
        return Aged(share, stratum, step, slope)


class Aged(NamedTuple):
    """F of n predictions, float64, with how it depends on the curve.

    It is the product of the factors above `step` of `stratum`, both int64, and of a part of the factor at it, whose
    elasticity is `slope`, float64.
    """

    share: NDArray[np.float64]
    stratum: NDArray[np.int64]
    step: NDArray[np.int64]
    slope: NDArray[np.float64]

    def taken(self, which: NDArray[np.bool_] | NDArray[np.integer]) -> Aged:
        """Some of them, by a mask or by position."""
        return Aged._make(column[which] for column in self)


def cell_of(score: NDArray[np.float64]) -> NDArray[np.int64]:
    """Cells of scores float64 (n,): int64 in [0, CELLS)."""
    return np.asarray(bin_of(score) // CELL_WIDTH, dtype=np.int64)


def bin_of_delay(delay_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Steps of the grid that delays fall into: int64 (n,) in [0, STEPS)."""
    return np.clip(np.searchsorted(EDGES_MS, delay_ms, side="left") - 1, 0, STEPS - 1)


def reached(age_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Last edge of the grid that ages have reached: int64 (n,) in [0, STEPS]."""
    return np.clip(np.searchsorted(EDGES_MS, age_ms, side="right") - 1, 0, STEPS)


def learn(delays: Delays, window_ms: int) -> DelayCurve | None:
    """Learns F from what has come; None where too few outcomes of closed predictions are known.

    Args:
        delays: Outcomes of one class.
        window_ms: Age from which nothing more counts.
    """
    if not tells(delays):
        return None
    stratum = strata_of(delays)
    return curve_of(stratum, window_ms, *steps_of(delays, stratum))


def tells(delays: Delays) -> bool:
    """Whether enough outcomes of closed predictions are known for a curve."""
    return int(delays.outcomes[delays.exposed == STEPS].sum()) >= LEAST_MATURE


def curve_of(
    stratum: NDArray[np.int64], window_ms: int, events: NDArray[np.int64], at_risk: NDArray[np.int64]
) -> DelayCurve:
    """The product-limit curve of `steps_of` outcomes."""
    events = np.where(EDGES_MS[:-1] >= window_ms, 0, events)
    kept = 1.0 - events / np.maximum(at_risk, 1)
    # The last outcome of a step has no company left to be late among: half an outcome keeps its variance finite.
    variances = events / (np.maximum(at_risk, 1) * np.maximum(at_risk - events, 0.5))
    return DelayCurve(stratum, window_ms, shares_of(kept), kept, variances)


def shares_of(kept: NDArray[np.float64]) -> NDArray[np.float64]:
    """F at the edges, float64 (s, STEPS + 1), from its factors, float64 (s, STEPS)."""
    backwards = np.cumprod(kept[:, ::-1], axis=1)[:, ::-1]
    return np.concatenate([backwards, np.ones((len(kept), 1))], axis=1)


def strata_of(delays: Delays) -> NDArray[np.int64]:
    """Strata of the score cells, int64 (CELLS,): quantiles of the outcomes, each of `STRATUM_LEAST` or more."""
    weight = np.bincount(delays.cell, weights=delays.outcomes, minlength=CELLS)
    wanted = int(min(STRATA, max(1, weight.sum() // STRATUM_LEAST)))
    middle = np.cumsum(weight) - weight / 2.0
    cut = np.minimum((middle / weight.sum() * wanted).astype(np.int64), wanted - 1)
    return np.unique(cut, return_inverse=True)[1].astype(np.int64)


def steps_of(delays: Delays, stratum: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Outcomes whose delay lies in each step, and those at risk of it, which came by its end; both int64 (s, STEPS).

    Only predictions whose age has reached the end of a step are counted at it.
    """
    return _steps(delays, stratum[delays.cell], int(stratum.max()) + 1)


def _steps(delays: Delays, group: NDArray[np.int64], groups: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `steps_of`, by groups int64 (m,)."""
    told = delays.exposed > delays.delay
    group, delay, exposed, count = (c[told] for c in (group, delays.delay, delays.exposed, delays.outcomes))
    width = STEPS + 1

    def sums(step: NDArray[np.int64]) -> NDArray[np.int64]:
        found = np.bincount(group * width + step, weights=count, minlength=groups * width)
        return found.astype(np.int64).reshape(groups, width)

    events = sums(delay)
    at_risk = np.cumsum(events - sums(exposed), axis=1)
    return events[:, :STEPS], at_risk[:, :STEPS]


def by_day(
    delays: Delays, stratum: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Days int64 (d,) in order, and `steps_of` each: int64 (d, s, STEPS)."""
    days, number = np.unique(delays.day, return_inverse=True)
    strata = int(stratum.max()) + 1
    events, at_risk = _steps(delays, number * strata + stratum[delays.cell], len(days) * strata)
    shape = (len(days), strata, STEPS)
    return days, events.reshape(shape), at_risk.reshape(shape)
