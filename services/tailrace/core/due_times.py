"""When something is due, for millions of rows: a ring of buckets instead of a timer per row."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_table import JoinTable, Rows

BUCKETS_PER_SPAN = 4_096


class DueTimes:
    """Rows by the time at which they are due. O(1) per row amortised.

    Args:
        span_ms: How long rows typically wait; decides how fine the buckets are.
    """

    def __init__(self, span_ms: int) -> None:
        self._width_ms = max(1, span_ms // BUCKETS_PER_SPAN)
        self._buckets: dict[int, list[tuple[NDArray[np.int64], Rows]]] = {}
        self._order: list[int] = []

    def add(self, due_ms: NDArray[np.int64], rows: Rows) -> None:
        """Adds rows, int64 (n,), with the times at which they are due, int64 (n,)."""
        if not rows.size:
            return
        numbers = due_ms // self._width_ms
        order = np.argsort(numbers, kind="stable")
        numbers, due_ms, rows = numbers[order], due_ms[order], rows[order]
        starts = np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1))
        ends = np.append(starts[1:], len(numbers))
        for number, start, end in zip(numbers[starts].tolist(), starts.tolist(), ends.tolist(), strict=True):
            bucket = self._buckets.get(number)
            if bucket is None:
                bucket = self._buckets[number] = []
                heapq.heappush(self._order, number)
            bucket.append((due_ms[start:end], rows[start:end]))

    def take(self, until_ms: int) -> Rows:
        """Takes out the rows that are due until then: int64 (n,), in no order."""
        whole = []
        last = until_ms // self._width_ms
        while self._order and self._order[0] <= last:
            whole += self._buckets.pop(heapq.heappop(self._order))
        if not whole:
            return np.empty(0, np.int64)
        due_ms, rows = (np.concatenate(part) for part in zip(*whole, strict=True))
        early = due_ms > until_ms
        self.add(due_ms[early], rows[early])
        return rows[~early]

    def end_of(self, due_ms: int) -> int:
        """The last millisecond of the bucket that a time falls into."""
        return (due_ms // self._width_ms + 1) * self._width_ms - 1

    def first_end(self) -> int | None:
        """The last millisecond of the first bucket that there is; None where nothing waits."""
        return self.end_of(self._order[0] * self._width_ms) if self._order else None

    def renumber(self, new: Rows) -> None:
        """Gives rows their new numbers: int64 (m,), by the old ones."""
        for number, parts in self._buckets.items():
            self._buckets[number] = [(due_ms, new[rows]) for due_ms, rows in parts]

    def remove(self, rows: Rows) -> None:
        """Takes out rows, int64 (n,), whenever they are due. O(all)."""
        for number, parts in list(self._buckets.items()):
            due_ms, waiting = (np.concatenate(part) for part in zip(*parts, strict=True))
            kept = ~np.isin(waiting, rows)
            if kept.any():
                self._buckets[number] = [(due_ms[kept], waiting[kept])]
            else:
                del self._buckets[number]
        self._order = sorted(self._buckets)

    def take_oldest(self) -> Rows:
        """Takes out the rows of the first bucket that there is: int64 (n,), none where nothing waits."""
        end_ms = self.first_end()
        return self.take(end_ms) if end_ms is not None else np.empty(0, np.int64)


def in_order(table: JoinTable, heads: Rows) -> Rows:
    """Events, int64 (n,) first rows, by the time they are due, then by id."""
    times = table.event_time_ms[heads]
    order = np.argsort(times, kind="stable")
    heads, times = heads[order], times[order]
    if not (times[1:] == times[:-1]).any():
        return heads
    names = table.event_ids(heads)
    due = times.tolist()
    return heads[sorted(range(len(heads)), key=lambda at: (due[at], names[at]))]
