"""The readings of windows at a tick: what the join's table holds of predictions still open, window by window.

Everything here follows from the table, the counts of windows and stream time: nothing is kept between ticks, and
sums run in an order of their own, so that a worker that was restarted reads what it would have read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.quality import Reading
from tailrace.core.delay_drift import DelayDrift, find_drift
from tailrace.core.join_table import JoinTable, Rows
from tailrace.core.label_delay import CELL_WIDTH, DAY_MS, Aged, DelayCurve, Delays, learn
from tailrace.core.label_free import JUDGED_WINDOWS, estimate, failed
from tailrace.core.labels import FINAL
from tailrace.core.lost_outcomes import Span, within
from tailrace.core.provisional import Came, Histogram, provisional, youngest
from tailrace.core.quality import QualityWindows
from tailrace.core.readings_kernels import scan
from tailrace.core.scoring import BINS
from tailrace.core.window_counts import WindowKey, keys_of

HISTORY_MS = 14 * DAY_MS
"""Span of closed predictions from whose outcomes the delays are learnt: two of each weekday."""
LEAST_FINAL = 200
"""Final labels below which a window says nothing of whether an estimate was right."""
_CELLS = np.arange(BINS) // CELL_WIDTH
_BIN_BITS = BINS.bit_length()


class ReadingSpec(NamedTuple):
    """How labels come: spans in milliseconds; `by_absence`: no outcome within the window means a negative label."""

    window_ms: int
    lateness_ms: int
    by_absence: bool
    threshold: float


class _Open(NamedTuple):
    """Open predictions of a window as columns of n; `outcome` is -1, 0 or 1."""

    rows: Rows
    bins: NDArray[np.int16]
    age_ms: NDArray[np.int64]
    outcome: NDArray[np.int8]


class Readings:
    """Readings at one moment.

    Args:
        spec: How labels come.
        windows: Counts of all that is known.
        elsewhere: Counts of what the table does not hold; the delays of its outcomes stand in them.
        table: Predictions that wait or may still be corrected.
        now_ms: Stream time, epoch milliseconds. What is dated later is not looked at.
        lost: Spans of events whose outcomes may have been lost; neither the delays nor what is still to come are read
            from them.

    Attributes:
        drift: A change of the delays, None for none.
    """

    def __init__(
        self,
        spec: ReadingSpec,
        windows: QualityWindows,
        elsewhere: Sequence[QualityWindows],
        table: JoinTable,
        now_ms: int,
        lost: Sequence[Span] = (),
    ) -> None:
        self._spec, self._windows, self._table, self._now_ms = spec, windows, table, now_ms
        self._lost = lost
        of_prediction = (table.serial, table.event_time_ms, table.cohort, table.flags)
        of_event = (table.head, table.closed, table.outcome, table.value, table.outcome_time_ms)
        waiting, code, said, come, what = scan(*of_prediction, *of_event, len(table.cohorts), now_ms)
        self.curves, self.drift = self._learn(come, what, elsewhere)
        self._youngest = {positive: youngest(curve) for positive, curve in self.curves.items()}
        self._waiting, self._said = waiting, said
        self._codes = self._by_window(code)
        self._newest: tuple[WindowKey, _Open] | None = None
        self._mature: dict[tuple[str, str, str], list[WindowKey]] = {}
        self._failures: dict[WindowKey, str] = {}
        self._corrected: dict[WindowKey, Reading | None] = {}
        self._guesses: dict[WindowKey, Reading] = {}

    def __iter__(self) -> Iterator[WindowKey]:
        """Windows that have predictions that wait for their label."""
        return iter(self._codes)

    def provisional(self, key: WindowKey) -> Reading | None:
        """A window's metrics corrected for the labels still to come; None where none are."""
        if key not in self._corrected:
            self._corrected[key] = self._correct(key)
        return self._corrected[key]

    def _correct(self, key: WindowKey) -> Reading | None:
        if key not in self._codes:
            return None
        needed = (True,) if self._spec.by_absence else (True, False)
        if any(positive not in self.curves for positive in needed):
            return Reading(withheld="too few labels have matured to know how late they come")
        mine = self._of(key)
        told = self._old_enough(mine)
        came = told & (mine.outcome == 1 if self._spec.by_absence else mine.outcome >= 0)
        return provisional(
            self._closed(key, mine),
            _counted(mine.bins[told]),
            self._came(mine, np.flatnonzero(came)),
            {positive: self.curves[positive] for positive in needed},
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
        if key not in self._guesses:
            self._guesses[key] = self._guess(key)
        return self._guesses[key]

    def _guess(self, key: WindowKey) -> Reading:
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
        self, come: Rows, outcome: NDArray[np.int8], elsewhere: Sequence[QualityWindows]
    ) -> tuple[dict[bool, DelayCurve], DelayDrift | None]:
        """Curves by class, and whether the delays have changed; those of positive outcomes tell."""
        table, spec = self._table, self._spec
        first_ms = (self._now_ms - spec.window_ms - spec.lateness_ms - HISTORY_MS) // DAY_MS * DAY_MS
        shadow = np.array([cohort.variant == "shadow" for cohort in table.cohorts], dtype=np.bool_)
        curves: dict[bool, DelayCurve] = {}
        drift = None
        for positive in (True,) if spec.by_absence else (True, False):
            mine = (outcome == int(positive)) & (table.event_time_ms[come] >= first_ms) & ~shadow[table.cohort[come]]
            rows = come[mine & ~within(self._lost, table.event_time_ms[come])]
            times_ms, head = table.event_time_ms[rows], table.head[rows]
            delay_ms = table.outcome_time_ms[head] - times_ms
            came = Delays.of(times_ms, table.score[rows], delay_ms, table.closed[head], self._now_ms)
            delays = Delays.joined([came, *(windows.delays(positive, first_ms) for windows in elsewhere)])
            found = find_drift(delays, spec.window_ms)
            if found is not None and (drift is None or found.statistic > drift.statistic):
                drift = found
            curve = found.curve if found is not None else learn(delays, spec.window_ms)
            if curve is not None:
                curves[positive] = curve
        return curves, drift

    def _by_window(self, code: NDArray[np.int64]) -> dict[WindowKey, list[NDArray[np.int64]]]:
        """Places of the open predictions of each window, by their day and cohort as one number, int64 (n,)."""
        narrow = code - code.min(initial=np.iinfo(np.int64).max)
        # Codes of few bits are sorted by counting.
        order = np.argsort(narrow.astype(np.min_scalar_type(int(narrow.max(initial=0)))), kind="stable")
        code = code[order]
        first = np.flatnonzero(np.diff(code, prepend=-1))
        ends = np.append(first, len(code))[1:]
        found: dict[WindowKey, list[NDArray[np.int64]]] = {}
        cohorts = self._table.cohorts
        for number, begin, end in zip(code[first].tolist(), first.tolist(), ends.tolist(), strict=True):
            day, cohort = divmod(number, len(cohorts))
            for key in keys_of(day * DAY_MS, cohorts[cohort]):
                found.setdefault(key, []).append(order[begin:end])
        return found

    def _of(self, key: WindowKey) -> _Open:
        """Open predictions of a window. Those of the last window are kept: both readings of one are asked for at once."""
        if self._newest is None or self._newest[0] != key:
            places = np.concatenate(self._codes[key])
            rows = self._waiting[places]
            age_ms = self._now_ms - self._table.event_time_ms[rows]
            self._newest = key, _Open(rows, self._table.bins(rows), age_ms, self._said[places])
        return self._newest[1]

    def _closed(self, key: WindowKey, mine: _Open) -> Histogram:
        """Final labels of a window's closed predictions."""
        histogram = self._windows.histogram([key])
        early = np.flatnonzero((self._table.status[mine.rows] == FINAL) & ~self._table.aside[mine.rows])
        if not early.size:
            return histogram
        bins, positive = mine.bins[early], self._table.label[mine.rows[early]] > 0.0
        n, positives = (np.bincount(which, minlength=BINS)[histogram.bins] for which in (bins, bins[positive]))
        kept = histogram.n > n
        return Histogram(histogram.bins[kept], (histogram.n - n)[kept], (histogram.positives - positives)[kept])

    def _old_enough(self, mine: _Open) -> NDArray[np.bool_]:
        """Whether enough of the outcomes come by the age of predictions for them to tell anything, and none is lost."""
        told = ~within(self._lost, self._now_ms - mine.age_ms)
        for positive, curve in self.curves.items():
            least_ms = self._youngest[positive]
            too_young = mine.age_ms < least_ms[curve.stratum[_CELLS]][mine.bins]
            older = self._now_ms - mine.age_ms < curve.since_ms
            if older.any():
                strata = curve.strata(_CELLS[mine.bins[older]], self._now_ms - mine.age_ms[older])
                too_young[older] = mine.age_ms[older] < least_ms[strata]
            told &= ~too_young if self._spec.by_absence else ~(too_young & (mine.outcome == int(positive)))
        return told

    def _came(self, mine: _Open, which: NDArray[np.int64]) -> Came:
        """Outcomes that have come, in an order that depends on themselves alone."""
        bins, age_ms, outcome = mine.bins[which].astype(np.int64), mine.age_ms[which], mine.outcome[which]
        # One number for each, quicker to sort than three keys; those that are equal are alike.
        order = np.argsort(((age_ms << _BIN_BITS) + bins << 2) + outcome)
        bins, age_ms, positive = bins[order], age_ms[order], outcome[order] == 1
        cells, times_ms = bins // CELL_WIDTH, self._now_ms - age_ms
        of_class = [(flag, curve.at(cells, times_ms, self._now_ms)) for flag, curve in self.curves.items()]
        aged = of_class[0][1]
        for flag, other in of_class[1:]:
            aged = Aged._make(np.where(positive == flag, new, old) for new, old in zip(other, aged, strict=True))
        return Came(bins, positive, aged)


def _counted(bins: NDArray[np.int16]) -> Histogram:
    """How many there are at each grid position, none known to be positive."""
    n = np.bincount(bins, minlength=BINS)
    distinct = np.flatnonzero(n)
    return Histogram(distinct, n[distinct], np.zeros(len(distinct), np.int64))


def _sum(one: Histogram, other: Histogram) -> Histogram:
    n, positives = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    for part in (one, other):
        n[part.bins] += part.n
        positives[part.bins] += part.positives
    bins = np.flatnonzero(n)
    return Histogram(bins, n[bins], positives[bins])
