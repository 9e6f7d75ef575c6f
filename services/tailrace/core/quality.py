"""Live quality by day of event time, variant, version and slice, as integer counts that can be taken back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.quality import Quality, Reading
from tailrace.core.error_cells import ErrorCells
from tailrace.core.fading import faded
from tailrace.core.join_table import ACTIVATED, ASSERTED, BLOCKED, Cohort, JoinTable, Rows
from tailrace.core.label_delay import CELLS, STEPS, Delays, bin_of_delay, cell_of
from tailrace.core.labels import FINAL
from tailrace.core.metrics import ScoreHistogram
from tailrace.core.provisional import Histogram
from tailrace.core.scoring import bin_of
from tailrace.core.shadow_pairs import pairs
from tailrace.core.window_counts import WindowCounts, WindowKey, keys_of
from tailrace.core.window_extras import ExtraRows, Extras, errors_of
from tailrace.core.window_metrics import (
    fields_of_extras,
    histogram_of,
    intervals_of_window,
    metrics_of_extras,
    metrics_of_window,
)
from tailrace.core.window_spec import PLAIN, WindowSpec

DAY_MS = 86_400_000


class _Window:
    __slots__ = ("delays", "disagreements", "extras", "histogram", "paired", "predictions")

    def __init__(self) -> None:
        self.delays: Counter[int] = Counter()
        self.predictions = 0
        self.paired = 0
        self.disagreements = 0
        self.histogram = ScoreHistogram()
        self.extras: Extras | None = None


class QualityWindows:
    """Counts of every window. Adding and taking back commute, so the order of arrival cannot matter.

    Args:
        spec: What is counted besides.

    Attributes:
        changed: Windows that changed since the caller last cleared it.
    """

    def __init__(self, spec: WindowSpec = PLAIN) -> None:
        self._spec = spec
        self._is_plain = spec == PLAIN
        self._windows: dict[WindowKey, _Window] = {}
        self._of_cohort: dict[tuple[int, Cohort], list[tuple[WindowKey, _Window]]] = {}
        self.changed: set[WindowKey] = set()

    def predicted(self, table: JoinTable, rows: Rows) -> None:  # hot path
        """Counts predictions."""
        more = None if self._is_plain else ExtraRows(self._spec, table, rows)
        for windows, which in self._groups(table, rows):
            for window in windows:
                window.predictions += len(which)
                if more is not None and window.extras is not None:
                    more.predicted(window.extras, which)

    def paired(self, table: JoinTable, shadows: Rows, agrees: NDArray[np.bool_]) -> None:
        """Counts events that both a shadow and a model with traffic scored, bool (n,): whether they decided alike."""
        for windows, which in self._groups(table, shadows):
            disagreements = len(which) - int(agrees[which].sum())
            for window in windows:
                window.paired += len(which)
                window.disagreements += disagreements

    def labelled(self, table: JoinTable, rows: Rows, labels: NDArray[np.float64], times: int = 1) -> None:  # hot path
        """Counts final labels, float64 (n,), or takes them back with `times` -1."""
        if not rows.size:
            return
        positions: NDArray[np.integer]
        if self._spec.grid is None:
            positions, positive = bin_of(table.score[rows]), labels > 0.0
        else:
            positions, positive = errors_of(self._spec.grid, table, rows, labels)
        more = None if self._is_plain else ExtraRows(self._spec, table, rows)
        for windows, which in self._groups(table, rows):
            for window in windows:
                window.histogram.add(positions[which], positive[which], times)
                if more is not None and window.extras is not None:
                    more.labelled(window.extras, which, labels, times)

    def add_rows(self, table: JoinTable, rows: Rows) -> None:
        """Counts all that is kept of whole events, as the calls above have done one by one."""
        self.predicted(table, rows)
        self.paired(table, *pairs(table, rows))
        final = rows[table.status[rows] == FINAL]
        self.labelled(table, final, table.label[final])

    def add_delays(self, table: JoinTable, rows: Rows, times: int = 1) -> None:
        """Counts how late the outcomes of whole events came, all of which are there, or takes it back with `times` -1."""
        head = table.head[rows]
        seen = table.closed[head] & (table.outcome[head] == ASSERTED)
        seen &= (table.flags[rows] & (ACTIVATED | BLOCKED)) == ACTIVATED
        seen &= self._spec.grid is None
        rows, head = rows[seen], head[seen]
        delay = bin_of_delay(table.outcome_time_ms[head] - table.event_time_ms[rows])
        code = ((table.value[head] > 0.0) * CELLS + cell_of(table.score[rows])) * STEPS + delay
        for windows, which in self._groups(table, rows):
            counted = windows[0].delays
            for value in code[which].tolist():
                counted[value] += times

    def delays(self, positive: bool, first_ms: int) -> Delays:
        """Delays of the traffic's outcomes of one class, of days from `first_ms` on."""
        found = [
            (key.start_ms // DAY_MS, code, count)
            for key, window in self._windows.items()
            if window.delays and key.start_ms >= first_ms and key.variant != "shadow"
            for code, count in window.delays.items()
            if count and (code >= CELLS * STEPS) == positive
        ]
        day, code, count = np.array(sorted(found), dtype=np.int64).reshape(-1, 3).T
        return Delays(day, code // STEPS % CELLS, code % STEPS, np.full(len(day), STEPS), count)

    def __iter__(self) -> Iterator[WindowKey]:
        return iter(self._windows)

    def drop_before(self, start_ms: int) -> list[WindowKey]:
        """Forgets windows that start earlier."""
        old = [key for key in self._windows if key.start_ms < start_ms]
        for key in old:
            del self._windows[key]
            self.changed.discard(key)
        if old:
            self._of_cohort.clear()
        return old

    def counts(self, key: WindowKey) -> WindowCounts:
        """Counts of one window, to be stored."""
        window = self._windows[key]
        bins, n, positives = window.histogram.sparse()
        counts = (window.predictions, window.paired, window.disagreements)
        extras = window.extras.stored() if window.extras is not None else None
        return WindowCounts(*counts, bins, n, positives, dict(sorted(window.delays.items())), extras)

    def restore(self, key: WindowKey, counts: WindowCounts) -> None:
        """Adds stored counts."""
        window = self._at(key)
        window.predictions += counts.predictions
        window.paired += counts.paired
        window.disagreements += counts.disagreements
        window.histogram.add_sparse(counts.bins, counts.n, counts.positives)
        window.delays.update(counts.delays)
        if counts.extras is not None and window.extras is not None:
            window.extras.add(counts.extras)

    def histogram(self, keys: Iterable[WindowKey]) -> Histogram:
        """Final labels over several windows together."""
        total = ScoreHistogram()
        for key in keys:
            total.add_histogram(self._windows[key].histogram)
        return histogram_of(total)

    def final(self, key: WindowKey) -> int:
        """Final labels in a window."""
        return self._windows[key].histogram.labelled

    def faded(self, key: WindowKey, threshold: float) -> dict[str, float | None]:
        """Metrics over a window and those before it of the same model and slice, older days fading."""
        days = [
            ((key.start_ms - other.start_ms) // DAY_MS, window.histogram)
            for other, window in self._windows.items()
            if other[1:] == key[1:] and other.start_ms <= key.start_ms
        ]
        return faded(self._spec, days, threshold=threshold)

    def newest(self, variant: str) -> WindowKey | None:
        """The newest window of all of a variant's traffic, of the version that made most of its predictions."""
        mine = [key for key in self._windows if key.slice == "" and key.variant == variant]
        return max(mine, key=lambda key: (key.start_ms, self.predictions(key), key.model_version), default=None)

    def predictions(self, key: WindowKey) -> int:
        """Predictions in a window."""
        return self._windows[key].predictions

    def intervals(self, key: WindowKey, threshold: float) -> dict[str, list[float]]:
        """95 % intervals of what the metrics of as many other labels would be."""
        return intervals_of_window(self._spec, self._windows[key].histogram, threshold)

    def maturity(self, key: WindowKey) -> float:
        """Share of a window's predictions whose label is final, in [0, 1]."""
        window = self._windows[key]
        return window.histogram.labelled / window.predictions if window.predictions else 0.0

    def metrics(self, keys: Iterable[WindowKey], threshold: float) -> dict[str, float | None]:
        """Metrics over several windows together."""
        taken = list(keys)
        total = ScoreHistogram()
        for key in taken:
            total.add_histogram(self._windows[key].histogram)
        found = metrics_of_window(self._spec, total, threshold)
        if self._is_plain:
            return found
        extras = [(key.start_ms, window.extras) for key in taken if (window := self._windows[key]).extras is not None]
        return found | metrics_of_extras(self._spec, extras, threshold)

    def record(
        self,
        key: WindowKey,
        *,
        use_case: str,
        label_name: str,
        threshold: float,
        watermark_ms: int,
        auxiliary: bool = False,
        provisional: Reading | None = None,
        estimate: Reading | None = None,
        fading: dict[str, float | None] | None = None,
    ) -> Quality:
        """What QUALITY says of a window."""
        window = self._windows[key]
        bins, n, positives = window.histogram.sparse()
        return Quality(
            use_case=use_case,
            label_name=label_name,
            window_start_ms=key.start_ms,
            window_end_ms=key.start_ms + DAY_MS,
            variant=key.variant,
            model_version=key.model_version,
            slice=key.slice,
            predictions=window.predictions,
            labelled=window.histogram.labelled,
            final=window.histogram.labelled,
            maturity=self.maturity(key),
            bins=bins,
            n=n,
            positives=positives,
            metrics=self.metrics([key], threshold) | {"threshold": threshold},
            watermark_ms=watermark_ms,
            paired=window.paired,
            disagreements=window.disagreements,
            auxiliary=auxiliary,
            intervals=self.intervals(key, threshold),
            provisional=provisional,
            estimate=estimate,
            fading=fading or {},
            **(fields_of_extras(self._spec, window.histogram, window.extras) if window.extras is not None else {}),
        )

    def _groups(self, table: JoinTable, rows: Rows) -> Iterator[tuple[list[_Window], NDArray[np.int64]]]:
        """Rows by the windows that they count in: the windows, and the positions of the rows, int64 (k,)."""
        if not rows.size:
            return
        days = table.event_time_ms[rows] // DAY_MS
        cohorts = table.cohort[rows]
        order = np.lexsort((cohorts, days))
        days, cohorts = days[order], cohorts[order]
        starts = np.flatnonzero(
            np.diff(days, prepend=days[:1] - 1).astype(np.bool_) | np.diff(cohorts, prepend=-1).astype(np.bool_)
        )
        for number, which in enumerate(np.split(order, starts[1:])):
            start = starts[number]
            yield self._windows_of(int(days[start]) * DAY_MS, table.cohorts[cohorts[start]]), which

    def _windows_of(self, start_ms: int, cohort: Cohort) -> list[_Window]:
        """Windows that a day's predictions of a cohort count in."""
        known = self._of_cohort.get((start_ms, cohort))
        if known is None:
            known = self._of_cohort[start_ms, cohort] = [(key, self._at(key)) for key in keys_of(start_ms, cohort)]
        self.changed.update([key for key, _ in known])
        return [window for _, window in known]

    def _at(self, key: WindowKey) -> _Window:
        self.changed.add(key)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window()
            if not self._is_plain:
                window.extras = Extras(self._spec, whole=not key.slice)
        return window

    def error_sums(self, keys: Iterable[WindowKey]) -> NDArray[np.int64]:
        """Sums of errors by cell of the prediction over several windows together; see `ErrorCells`."""
        total = ErrorCells()
        for key in keys:
            extras = self._windows[key].extras
            if extras is not None and extras.errors is not None:
                total.add(extras.errors.sums)
        return total.sums
