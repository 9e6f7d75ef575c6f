"""Choosing the rows a model is trained, calibrated and judged on: mature, each once, in time order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DAY_MS = 86_400_000
HELD_ROWS = 2_000
HELD_SHARES = (0.05, 0.1)
"""How much is held back, once to calibrate and once for the gates: `HELD_ROWS` and a whole day of events, but within
these shares. Less, and the gates judge noise, or the afternoon only; more, and the model does not know the newest
days (docs/adr/0007)."""


class DataSet(NamedTuple):
    """Rows in time order.

    `rows` float32 (n, d) in plan order, NaN = missing; `labels` bool (n,); `times_ms` int64 (n,).
    """

    rows: NDArray[np.float32]
    labels: NDArray[np.bool_]
    times_ms: NDArray[np.int64]

    def since(self, time_ms: int) -> DataSet:
        """Rows from a time on."""
        first = int(np.searchsorted(self.times_ms, time_ms))
        return DataSet(self.rows[first:], self.labels[first:], self.times_ms[first:])


class Split(NamedTuple):
    """The parts of a data set, the oldest first. The gates see rows that nothing was fitted to."""

    fit: DataSet
    calibration: DataSet
    gates: DataSet


def final_labels(
    codes: NDArray[np.int64],
    versions: NDArray[np.int64],
    labels: NDArray[np.float64],
    final: NDArray[np.bool_],
    known_at_ms: NDArray[np.int64],
    until_ms: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Predictions whose label was final at a time, from all label versions there are.

    Args:
        codes: int64 (m,), number of the prediction each version speaks of.
        versions: int64 (m,); the highest that was known holds.
        labels: float64 (m,), NaN where there is none; positive when above 0.
        final: bool (m,).
        known_at_ms: int64 (m,), epoch milliseconds of stream time.
        until_ms: Later versions are not looked at.

    Returns:
        Codes int64 (k,), ascending and distinct, and their labels bool (k,).
    """
    known = np.flatnonzero(known_at_ms <= until_ms)
    order = known[np.lexsort((versions[known], codes[known]))]
    newest = np.ones(len(order), dtype=np.bool_)
    newest[:-1] = codes[order][1:] != codes[order][:-1]
    taken = order[newest]
    taken = taken[final[taken] & ~np.isnan(labels[taken])]
    return codes[taken], labels[taken] > 0.0


def split_by_time(data: DataSet) -> Split:
    """Cuts a data set in time order: the newest rows for the gates, as many before them to calibrate, the rest to fit."""
    count = len(data.labels)
    least, most = (int(count * share) for share in HELD_SHARES)
    newest_day = int((data.times_ms > data.times_ms[-1] - DAY_MS).sum()) if count else 0
    held = min(max(HELD_ROWS, newest_day, least), most)
    first, second = count - 2 * held, count - held
    return Split(_part(data, 0, first), _part(data, first, second), _part(data, second, count))


def _part(data: DataSet, start: int, end: int) -> DataSet:
    return DataSet(data.rows[start:end], data.labels[start:end], data.times_ms[start:end])
