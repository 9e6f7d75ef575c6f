"""How old the oldest record is that a consumer has not read, from offsets alone."""

from __future__ import annotations

from bisect import bisect_right


class OffsetHistory:
    """Remembers when the end of a partition was seen where, and so dates any offset without reading it.

    A record's age is known to within one interval between two observations; between them it is taken to lie
    on a straight line. An offset older than the history is as old as the history, at least.

    Args:
        keep_ms: Span of wall time to remember, milliseconds.
    """

    def __init__(self, keep_ms: int = 7_200_000) -> None:
        self._keep_ms = keep_ms
        self._ends: list[int] = []
        self._times_ms: list[int] = []

    def observe(self, end: int, at_ms: int) -> None:
        """Takes note of a partition's end offset; an end that is behind the last one begins anew."""
        if self._ends and end < self._ends[-1]:
            self._ends, self._times_ms = [], []
        if len(self._ends) > 1 and self._ends[-1] == self._ends[-2] == end:
            self._times_ms[-1] = at_ms
        else:
            self._ends.append(end)
            self._times_ms.append(at_ms)
        old = bisect_right(self._times_ms, at_ms - self._keep_ms)
        # The newest of the old ones stays: it says where the kept span begins.
        if old > 1:
            del self._ends[: old - 1], self._times_ms[: old - 1]

    def age_ms(self, offset: int, now_ms: int) -> int:
        """Age of the record at `offset`, the next that a consumer will read.

        Args:
            offset: Where a consumer stands.
            now_ms: Wall clock.

        Returns:
            Milliseconds; 0 when the consumer stands at the end.
        """
        if not self._ends or offset >= self._ends[-1]:
            return 0
        after = bisect_right(self._ends, offset)
        if after == 0:
            return max(now_ms - self._times_ms[0], 0)
        before, behind = self._ends[after - 1], self._ends[after]
        begin_ms, end_ms = self._times_ms[after - 1], self._times_ms[after]
        written_ms = begin_ms + (end_ms - begin_ms) * (offset - before + 1) / (behind - before)
        return max(int(now_ms - written_ms), 0)
