"""Readings of windows of predicted numbers whose outcomes are still coming: the estimate, which needs none of them.

There is no provisional reading: outcomes that are known early can be those of a kind (a machine that fails soon has
little life left), so that weights by delay alone would mislead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from tailrace.contracts.quality import Reading
from tailrace.core.error_cells import LEAST_LABELS, estimated
from tailrace.core.label_delay import DelayCurve
from tailrace.core.label_free import JUDGED_WINDOWS
from tailrace.core.quality import DAY_MS, QualityWindows
from tailrace.core.regression import ValueGrid
from tailrace.core.window_counts import WindowKey

COMPLETE = 0.98
"""Share of outcomes from which a window is judged by them before the last could have come."""


class NumberReadings:
    """Readings at one moment; the counterpart of `readings.Readings`.

    Args:
        grid: Where the numbers lie.
        wait_ms: How long an outcome can take to become final.
        windows: Counts of all that is known.
        now_ms: Stream time, epoch milliseconds.
    """

    drift = None
    curves: ClassVar[dict[bool, DelayCurve]] = {}

    def __init__(self, grid: ValueGrid, wait_ms: int, windows: QualityWindows, now_ms: int) -> None:
        self._grid, self._wait_ms, self._windows, self._now_ms = grid, wait_ms, windows, now_ms

    def __iter__(self) -> Iterator[WindowKey]:
        """Windows that wait for outcomes."""
        return (key for key in self._windows if not self._matured(key))

    def provisional(self, key: WindowKey) -> Reading | None:
        """None of a window that has its outcomes; of others, why there is none."""
        if self._matured(key):
            return None
        return Reading(
            arrived=self._windows.maturity(key), withheld="numbers that come early may be of a kind: see the estimate"
        )

    def estimate(self, key: WindowKey) -> Reading:
        """What errors should be; withheld from windows that wait, where it was wrong in the newest that do not."""
        if not self._matured(key):
            older = sorted(other for other in self._windows if other[1:] == key[1:] and self._judges(other))
            for other in older[: -JUDGED_WINDOWS - 1 : -1]:
                reason = self._miss(other)
                if reason:
                    return Reading(withheld=reason)
        return self._guess(key)

    def _guess(self, key: WindowKey) -> Reading:
        """By the outcomes that were known when the window began to need them."""
        known = [
            other
            for other in self._windows
            if other[1:] == key[1:] and other.start_ms <= key.start_ms - self._wait_ms and self._matured(other)
        ]
        older = self._windows.error_sums(known)
        return estimated(self._windows.error_sums([key]), older, step=self._grid.step)

    def _miss(self, key: WindowKey) -> str:
        reading, final = self._guess(key), self._windows.metrics([key], 0.0)["mae"]
        bounds = reading.intervals.get("mae")
        if bounds is None or final is None or bounds[0] <= final <= bounds[1]:
            return ""
        said = reading.metrics["mae"]
        return f"mae of a window that has its outcomes by now was {final:.4g}; {said:.4g} was estimated"

    def _matured(self, key: WindowKey) -> bool:
        return self._windows.maturity(key) >= COMPLETE or key.start_ms + DAY_MS + self._wait_ms <= self._now_ms

    def _judges(self, key: WindowKey) -> bool:
        return self._matured(key) and self._windows.final(key) >= LEAST_LABELS
