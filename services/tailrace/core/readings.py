"""The readings of windows at a tick: what the join's table holds of predictions still open, window by window.

Everything here follows from the table, the counts of windows and stream time: nothing is kept between ticks, and
sums run in an order of their own, so that a worker that was restarted reads what it would have read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.records import Reading
from tailrace.core.delay_drift import DelayDrift, find_drift
from tailrace.core.join_table import ACTIVATED, ASSERTED, BLOCKED, JoinTable, Rows
from tailrace.core.label_delay import CELL_WIDTH, DAY_MS, Aged, DelayCurve, Delays, learn
from tailrace.core.label_free import JUDGED_WINDOWS, estimate, failed
from tailrace.core.labels import FINAL
from tailrace.core.provisional import Came, Histogram, provisional, youngest
from tailrace.core.quality import QualityWindows, WindowKey, keys_of
from tailrace.core.scoring import BINS, bin_of

HISTORY_MS = 14 * DAY_MS
"""Span of closed predictions from whose outcomes the delays are learnt: two of each weekday."""
LEAST_FINAL = 200
"""Final labels below which a window says nothing of whether an estimate was right."""


class ReadingSpec(NamedTuple):
    """How labels come: spans in milliseconds; `by_absence`: no outcome within the window means a negative label."""

    window_ms: int
    lateness_ms: int
    by_absence: bool
    threshold: float


class _Open(NamedTuple):
    """Open predictions as columns of n: `code` is their day and cohort as one number, `outcome` -1, 0 or 1."""

    rows: Rows
    code: NDArray[np.int64]
    bins: NDArray[np.int64]
    age_ms: NDArray[np.int64]
    outcome: NDArray[np.int8]


class Readings:
    """Readings at one moment.

    Args:
        spec: How labels come.
        windows: Counts of all that is known.
        settled: Counts of what the table no longer holds; the delays of its outcomes stand in them.
        table: Predictions that wait or may still be corrected.
        now_ms: Stream time, epoch milliseconds. What is dated later is not looked at.

    Attributes:
        drift: A change of the delays, None for none.
    """

    def __init__(
        self, spec: ReadingSpec, windows: QualityWindows, settled: QualityWindows, table: JoinTable, now_ms: int
    ) -> None:
        self._spec, self._windows, self._table, self._now_ms = spec, windows, table, now_ms
        live = table.in_use()
        seen = ((table.flags[live] & (ACTIVATED | BLOCKED)) == ACTIVATED) & (table.event_time_ms[live] <= now_ms)
        live = live[seen]
        head = table.head[live]
        outcome = np.where(table.value[head] > 0.0, 1, 0).astype(np.int8)
        outcome[(table.outcome[head] != ASSERTED) | (table.outcome_time_ms[head] > now_ms)] = -1
        closed = table.closed[head]
        self.curves, self.drift = self._learn(live, outcome, closed, settled)
        self._open = self._waiting(live[~closed], outcome[~closed])
        self._codes = self._by_window()
        self._mature: dict[tuple[str, str, str], list[WindowKey]] = {}
        self._failures: dict[WindowKey, str] = {}

    def __iter__(self) -> Iterator[WindowKey]:
        """Windows that have predictions that wait for their label."""
        return iter(self._codes)

    def provisional(self, key: WindowKey) -> Reading | None:
        """A window's metrics corrected for the labels still to come; None where none are."""
        if key not in self._codes:
            return None
        needed = (True,) if self._spec.by_absence else (True, False)
        if any(positive not in self.curves for positive in needed):
            return Reading(withheld="too few labels have matured to know how late they come")
        mine = self._of(key)
        curves = {positive: self.curves[positive] for positive in needed}
        came = mine.outcome >= 0 if not self._spec.by_absence else mine.outcome == 1
        told = self._old_enough(mine)
        return provisional(
            self._closed(key, mine),
            _counted(mine.bins[told]),
            self._came(mine, np.flatnonzero(told & came)),
            curves,
            by_absence=self._spec.by_absence,
            threshold=self._spec.threshold,
        )

    def estimate(self, key: WindowKey) -> Reading:
        """A window's metrics as its scores and older labels suggest, whether or not its own labels are there.

        Withheld from windows that wait for labels, where it was wrong in the newest that had theirs.
        """
        if key in self._codes:
            reason = self._failure(WindowKey(0, *key[1:]))
            if reason:
                return Reading(withheld=reason)
        return self.guess(key)

    def _failure(self, of_model: WindowKey) -> str:
        if of_model not in self._failures:
            newest = self._matured(of_model)[: -JUDGED_WINDOWS - 1 : -1]
            threshold = self._spec.threshold
            compared = [(self.guess(key), self._windows.metrics([key], threshold)) for key in newest]
            self._failures[of_model] = failed(compared)
        return self._failures[of_model]

    def guess(self, key: WindowKey) -> Reading:
        """The estimate by the labels that were known when the window ended: labels of its own never change it."""
        wait_ms = self._spec.window_ms + self._spec.lateness_ms
        older = [other for other in self._matured(key) if other.start_ms <= key.start_ms - wait_ms]
        scores = self._windows.histogram([key])
        if key in self._codes:
            mine = self._of(key)
            scores = _sum(self._closed(key, mine), _counted(mine.bins))
        return estimate(scores, self._windows.histogram(older), threshold=self._spec.threshold)

    def _matured(self, of: WindowKey) -> list[WindowKey]:
        """Windows of the same model and slice that have all their labels, the oldest first."""
        model = of[1:]
        if model not in self._mature:
            self._mature[model] = sorted(
                key
                for key in self._windows
                if key[1:] == model and key not in self._codes and self._windows.final(key) >= LEAST_FINAL
            )
        return self._mature[model]

    def _learn(
        self, live: Rows, outcome: NDArray[np.int8], closed: NDArray[np.bool_], settled: QualityWindows
    ) -> tuple[dict[bool, DelayCurve], DelayDrift | None]:
        """Curves by class, and whether the delays have changed; those of positive outcomes tell."""
        table, spec = self._table, self._spec
        first_ms = (self._now_ms - spec.window_ms - spec.lateness_ms - HISTORY_MS) // DAY_MS * DAY_MS
        shadow = np.array([cohort.variant == "shadow" for cohort in table.cohorts], dtype=np.bool_)
        curves: dict[bool, DelayCurve] = {}
        drift = None
        for positive in (True,) if spec.by_absence else (True, False):
            mine = (outcome == int(positive)) & (table.event_time_ms[live] >= first_ms) & ~shadow[table.cohort[live]]
            rows = live[mine]
            times_ms = table.event_time_ms[rows]
            delay_ms = table.outcome_time_ms[table.head[rows]] - times_ms
            came = Delays.of(times_ms, table.score[rows], delay_ms, closed[mine], self._now_ms)
            delays = Delays.joined([came, settled.delays(positive, first_ms)])
            found = find_drift(delays, spec.window_ms)
            if found is not None and (drift is None or found.statistic > drift.statistic):
                drift = found
            curve = found.curve if found is not None else learn(delays, spec.window_ms)
            if curve is not None:
                curves[positive] = curve
        return curves, drift

    def _waiting(self, rows: Rows, outcome: NDArray[np.int8]) -> _Open:
        """Open predictions, those of one day and cohort together."""
        table = self._table
        code = table.event_time_ms[rows] // DAY_MS * len(table.cohorts) + table.cohort[rows]
        order = np.argsort(code, kind="stable")
        rows = rows[order]
        bins = bin_of(table.score[rows]).astype(np.int64)
        return _Open(rows, code[order], bins, self._now_ms - table.event_time_ms[rows], outcome[order])

    def _by_window(self) -> dict[WindowKey, list[slice]]:
        """Where the open predictions of each window stand."""
        codes, first = np.unique(self._open.code, return_index=True)
        ends = np.append(first, len(self._open.code))[1:]
        found: dict[WindowKey, list[slice]] = {}
        cohorts = self._table.cohorts
        for code, begin, end in zip(codes.tolist(), first.tolist(), ends.tolist(), strict=True):
            day, cohort = divmod(code, len(cohorts))
            for key in keys_of(day * DAY_MS, cohorts[cohort]):
                found.setdefault(key, []).append(slice(begin, end))
        return found

    def _of(self, key: WindowKey) -> _Open:
        parts = self._codes[key]
        return _Open._make(np.concatenate([column[part] for part in parts]) for column in self._open)

    def _closed(self, key: WindowKey, mine: _Open) -> Histogram:
        """Final labels of a window's closed predictions."""
        histogram = self._windows.histogram([key])
        early = self._table.status[mine.rows] == FINAL
        if not early.any():
            return histogram
        positive = self._table.label[mine.rows] > 0.0
        n, positives = (
            np.bincount(mine.bins[early & which], minlength=BINS)[histogram.bins] for which in (True, positive)
        )
        kept = histogram.n > n
        return Histogram(histogram.bins[kept], (histogram.n - n)[kept], (histogram.positives - positives)[kept])

    def _old_enough(self, mine: _Open) -> NDArray[np.bool_]:
        """Whether enough of the outcomes come by the age of predictions for them to tell anything."""
        told = np.ones(len(mine.rows), np.bool_)
        cells = mine.bins // CELL_WIDTH
        for positive, curve in self.curves.items():
            too_young = mine.age_ms < youngest(curve)[curve.strata(cells, self._now_ms - mine.age_ms)]
            told &= ~too_young if self._spec.by_absence else ~(too_young & (mine.outcome == int(positive)))
        return told

    def _came(self, mine: _Open, which: NDArray[np.int64]) -> Came:
        """Outcomes that have come, in an order that depends on themselves alone."""
        order = which[np.lexsort((mine.outcome[which], mine.bins[which], mine.age_ms[which]))]
        positive = mine.outcome[order] == 1
        cells, times_ms = mine.bins[order] // CELL_WIDTH, self._now_ms - mine.age_ms[order]
        of_class = [(flag, curve.at(cells, times_ms, self._now_ms)) for flag, curve in self.curves.items()]
        aged = of_class[0][1]
        for flag, other in of_class[1:]:
            aged = Aged._make(np.where(positive == flag, new, old) for new, old in zip(other, aged, strict=True))
        return Came(mine.bins[order], positive, aged)


def _counted(bins: NDArray[np.int64]) -> Histogram:
    """How many there are at each grid position, none known to be positive."""
    distinct, n = np.unique(bins, return_counts=True)
    return Histogram(distinct, n, np.zeros(len(distinct), np.int64))


def _sum(one: Histogram, other: Histogram) -> Histogram:
    bins = np.union1d(one.bins, other.bins)
    n, positives = np.zeros(len(bins), np.int64), np.zeros(len(bins), np.int64)
    for part in (one, other):
        at = np.searchsorted(bins, part.bins)
        n[at] += part.n
        positives[at] += part.positives
    return Histogram(bins, n, positives)
