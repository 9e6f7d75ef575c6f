"""Detectors of drift in the mean of a stream of losses: ADWIN and Page-Hinkley. Only a rise is drift."""

from __future__ import annotations

import math
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.monitors import ADWIN, PageHinkley

LOSS_CAP = 4.0
"""Losses are cut off here for ADWIN, whose bound needs values of known range: one event that was thought
impossible (log loss 16) would otherwise weigh as much as hundreds of ordinary misses."""


class LossDetector(Protocol):
    """State of a detector."""

    @property
    def estimate(self) -> float:
        """Mean of the losses it holds."""

    def update(self, values: NDArray[np.float64], times_ms: NDArray[np.int64]) -> int | None:
        """Feeds losses in order.

        Args:
            values: float64 (n,), >= 0.
            times_ms: int64 (n,), when each became known, epoch milliseconds.

        Returns:
            Time of the first value at which drift was detected, else None. The detector begins anew
            there and goes on with the rest.
        """

    def snapshot(self) -> dict[str, Any]:
        """Plain data from which `start_loss_detector` goes on exactly."""


def start_loss_detector(spec: ADWIN | PageHinkley, snapshot: dict[str, Any] | None = None) -> LossDetector:
    """A detector that begins, or goes on from a snapshot."""
    if isinstance(spec, ADWIN):
        return _AdwinState(spec, msgspec.convert(snapshot, _AdwinData) if snapshot else _AdwinData())
    return _PageHinkleyState(spec, msgspec.convert(snapshot, _PageHinkleyData) if snapshot else _PageHinkleyData())


class _PageHinkleyData(msgspec.Struct):
    count: int = 0
    mean: float = 0.0
    excess: float = 0.0


class _PageHinkleyState:
    """Page (1954), Hinkley (1971), against the running mean.

    The sum of what each loss exceeds the mean by, less `delta`, never below 0; drift where it passes
    `threshold`. Without a forgetting factor: River's, applied to a sum that is mostly negative, draws
    it up towards 0 and so away from its minimum, and raises alarms on steady losses.
    """

    def __init__(self, spec: PageHinkley, data: _PageHinkleyData) -> None:
        self._spec = spec
        self._data = data

    @property
    def estimate(self) -> float:
        return self._data.mean

    def update(self, values: NDArray[np.float64], times_ms: NDArray[np.int64]) -> int | None:
        first: int | None = None
        for value, time_ms in zip(values.tolist(), times_ms.tolist(), strict=True):
            data = self._data
            data.count += 1
            data.mean += (value - data.mean) / data.count
            data.excess = max(0.0, data.excess + (value - data.mean - self._spec.delta))
            if data.count >= self._spec.min_instances and data.excess > self._spec.threshold:
                first = time_ms if first is None else first
                self._data = _PageHinkleyData()
        return first

    def snapshot(self) -> dict[str, Any]:
        return dict(msgspec.to_builtins(self._data))


class _AdwinData(msgspec.Struct):
    """Rows of buckets, the newest first; row i holds buckets of 2**i values as (sum, sum of squares)."""

    rows: list[list[tuple[float, float]]] = []
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    ticks: int = 0


class _AdwinState:
    """Adaptive windowing: Bifet and Gavaldà (2007), the variant with exponential histograms (section 4).

    A window is cut where the means of its two parts differ by more than a bound of Bernstein's kind
    allows at confidence `delta`. Here a cut counts as drift only where the newer part is the larger.
    """

    MAX_BUCKETS = 5
    CHECK_EVERY = 32
    MIN_PART = 5

    def __init__(self, spec: ADWIN, data: _AdwinData) -> None:
        self._spec = spec
        self._data = data

    @property
    def estimate(self) -> float:
        return self._data.total / self._data.count if self._data.count else 0.0

    def update(self, values: NDArray[np.float64], times_ms: NDArray[np.int64]) -> int | None:
        first: int | None = None
        for value, time_ms in zip(np.minimum(values, LOSS_CAP).tolist(), times_ms.tolist(), strict=True):
            self._insert(value / LOSS_CAP)
            if self._data.ticks % self.CHECK_EVERY == 0 and self._shrink() and first is None:
                first = time_ms
        return first

    def snapshot(self) -> dict[str, Any]:
        return dict(msgspec.to_builtins(self._data))

    def _insert(self, value: float) -> None:
        data = self._data
        data.ticks += 1
        data.count += 1
        data.total += value
        data.squares += value * value
        carried: tuple[float, float] | None = (value, value * value)
        at = 0
        while carried is not None:
            if at == len(data.rows):
                data.rows.append([])
            row = data.rows[at]
            row.insert(0, carried)
            carried = None
            if len(row) > self.MAX_BUCKETS:
                (sum_a, sq_a), (sum_b, sq_b) = row.pop(), row.pop()
                carried = (sum_a + sum_b, sq_a + sq_b)
            at += 1

    def _shrink(self) -> bool:
        """Drops old buckets while a cut is significant; True if the newer part was the larger."""
        risen = False
        while (cut := self._cut()) is not None:
            risen = risen or cut
            self._drop_oldest()
        return risen

    def _drop_oldest(self) -> None:
        data = self._data
        total, squares = data.rows[-1].pop()
        data.count -= 1 << (len(data.rows) - 1)
        data.total -= total
        data.squares -= squares
        while data.rows and not data.rows[-1]:
            data.rows.pop()

    def _cut(self) -> bool | None:
        """Whether some cut is significant: True with a larger newer part, False a smaller, None for no cut."""
        data = self._data
        if data.count < 2 * self.MIN_PART:
            return None
        variance = max(data.squares / data.count - (data.total / data.count) ** 2, 0.0)
        confidence = math.log(2.0 * math.log(data.count) / self._spec.delta)
        old_count, old_total = 0, 0.0
        for at in range(len(data.rows) - 1, -1, -1):
            for total, _ in reversed(data.rows[at]):
                old_count += 1 << at
                old_total += total
                new_count = data.count - old_count
                if old_count < self.MIN_PART or new_count < self.MIN_PART:
                    continue
                gap = (data.total - old_total) / new_count - old_total / old_count
                weight = 1.0 / (old_count - self.MIN_PART + 1) + 1.0 / (new_count - self.MIN_PART + 1)
                bound = math.sqrt(2.0 * weight * variance * confidence) + 2.0 / 3.0 * weight * confidence
                if abs(gap) > bound:
                    return gap > 0.0
        return None
