"""Exact sliding windows of one key in plain Python: twelve features over four spans."""

from __future__ import annotations

from collections import deque

SPANS_MS = (60_000, 600_000, 3_600_000, 86_400_000)


class Windows:
    """Count, sum and mean over (t - span, t] for each span, kept as running sums over a queue per span."""

    __slots__ = ("queues", "sums")

    def __init__(self) -> None:
        self.queues = tuple(deque() for _ in SPANS_MS)
        self.sums = [0.0] * len(SPANS_MS)

    def add(self, at_ms: int, amount: float) -> list[float]:
        """Takes in an event, in order of time; gives the twelve values as of it."""
        row = []
        sums = self.sums
        for n, span in enumerate(SPANS_MS):
            queue = self.queues[n]
            queue.append((at_ms, amount))
            total = sums[n] + amount
            begin = at_ms - span
            while queue[0][0] <= begin:
                total -= queue.popleft()[1]
            sums[n] = total
            count = len(queue)
            row += (count, total, total / count)
        return row
