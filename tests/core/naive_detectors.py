"""ADWIN and Page-Hinkley as their papers read, value by value; twins of `core.loss_kernels`."""

from __future__ import annotations

import math
from collections.abc import Iterable

MAX_BUCKETS, CHECK_EVERY, MIN_PART = 5, 32, 5


class NaivePageHinkley:
    """Feeds values; True where drift is detected."""

    def __init__(self, min_instances: int, delta: float, threshold: float) -> None:
        self._least, self._delta, self._threshold = min_instances, delta, threshold
        self.count, self.mean, self.excess = 0, 0.0, 0.0

    def update(self, values: Iterable[float]) -> list[int]:
        return [at for at, value in enumerate(values) if self._step(value)]

    def _step(self, value: float) -> bool:
        self.count += 1
        self.mean += (value - self.mean) / self.count
        self.excess = max(0.0, self.excess + (value - self.mean - self._delta))
        drift = self.count >= self._least and self.excess > self._threshold
        if drift:
            self.count, self.mean, self.excess = 0, 0.0, 0.0
        return drift


class NaiveAdwin:
    """Rows of buckets, row i with sums of 2**i values, the newest first."""

    def __init__(self, delta: float) -> None:
        self._delta = delta
        self.rows: list[list[tuple[float, float]]] = []
        self.count, self.ticks, self.total, self.squares = 0, 0, 0.0, 0.0

    def update(self, values: Iterable[float]) -> list[int]:
        return [at for at, value in enumerate(values) if self._step(value)]

    def _step(self, value: float) -> bool:
        self.count, self.ticks = self.count + 1, self.ticks + 1
        self.total, self.squares = self.total + value, self.squares + value * value
        carried: tuple[float, float] | None = (value, value * value)
        for at in range(65):
            if carried is None:
                break
            if at == len(self.rows):
                self.rows.append([])
            self.rows[at].insert(0, carried)
            carried = None
            if len(self.rows[at]) > MAX_BUCKETS:
                (a, squares_a), (b, squares_b) = self.rows[at].pop(), self.rows[at].pop()
                carried = (a + b, squares_a + squares_b)
        risen = False
        while self.ticks % CHECK_EVERY == 0 and (cut := self._cut()) is not None:
            risen = risen or cut
            total, squares = self.rows[-1].pop()
            self.count -= 1 << (len(self.rows) - 1)
            self.total, self.squares = self.total - total, self.squares - squares
            while self.rows and not self.rows[-1]:
                self.rows.pop()
        return risen

    def _cut(self) -> bool | None:
        if self.count < 2 * MIN_PART:
            return None
        mean = self.total / self.count
        variance = max(self.squares / self.count - mean * mean, 0.0)
        confidence = math.log(2.0 * math.log(self.count) / self._delta)
        old_count, old_total = 0, 0.0
        for at in range(len(self.rows) - 1, -1, -1):
            for total, _ in reversed(self.rows[at]):
                old_count, old_total = old_count + (1 << at), old_total + total
                new_count = self.count - old_count
                if old_count < MIN_PART or new_count < MIN_PART:
                    continue
                gap = (self.total - old_total) / new_count - old_total / old_count
                weight = 1.0 / (old_count - MIN_PART + 1) + 1.0 / (new_count - MIN_PART + 1)
                bound = math.sqrt(2.0 * weight * variance * confidence) + 2.0 / 3.0 * weight * confidence
                if abs(gap) > bound:
                    return gap > 0.0
        return None
