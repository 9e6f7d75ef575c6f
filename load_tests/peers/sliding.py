"""Exact sliding windows of one card in plain Python: twelve features over four spans. Needs nothing but Python."""

from __future__ import annotations

from array import array

SPANS_MS = (600_000, 3_600_000, 86_400_000, 7 * 86_400_000)


class Card:
    """Payments of the longest span in order of time, and per span where it begins, and the sum; spans are (t - span, t]."""

    __slots__ = ("amounts", "begins", "sums", "times")

    def __init__(self) -> None:
        self.times = array("q")
        self.amounts = array("d")
        self.begins = [0, 0, 0, 0]
        self.sums = [0.0, 0.0, 0.0, 0.0]

    def add(self, at_ms: int, amount: float) -> list[float]:
        """Adds a payment; the twelve features as of it."""
        times, amounts, begins, sums = self.times, self.amounts, self.begins, self.sums
        times.append(at_ms)
        amounts.append(amount)
        n = len(times)
        counts, totals, means = [], [], []
        for at, span in enumerate(SPANS_MS):
            begin, total = begins[at], sums[at] + amount
            while times[begin] <= at_ms - span:
                total -= amounts[begin]
                begin += 1
            begins[at], sums[at] = begin, total
            counts.append(n - begin)
            totals.append(total)
            means.append(total / (n - begin))
        if begins[3] > 64 and begins[3] > n // 2:
            gone = begins[3]
            del times[:gone], amounts[:gone]
            self.begins = [begin - gone for begin in begins]
        return counts + totals + means

    def packed(self) -> bytes:
        """State for the changelog."""
        begin = self.begins[3]
        return self.times[begin:].tobytes() + self.amounts[begin:].tobytes()
