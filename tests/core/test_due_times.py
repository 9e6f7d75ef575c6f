"""The ring of buckets against a heap."""

from __future__ import annotations

import heapq

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.due_times import BUCKETS_PER_SPAN, DueTimes

times = st.integers(-50, 50)


@given(st.lists(st.tuples(st.lists(times, max_size=6), times), max_size=10), st.sampled_from([1, 7]))
def test_rows_come_out_when_they_are_due_and_once(steps: list[tuple[list[int], int]], width_ms: int) -> None:
    ring, heap = DueTimes(width_ms * BUCKETS_PER_SPAN), list[tuple[int, int]]()
    row = 0
    for due_ms, until_ms in steps:
        rows = np.arange(row, row + len(due_ms))
        row += len(due_ms)
        ring.add(np.array(due_ms, dtype=np.int64), rows)
        for item in zip(due_ms, rows.tolist(), strict=True):
            heapq.heappush(heap, item)
        expected = []
        while heap and heap[0][0] <= until_ms:
            expected.append(heapq.heappop(heap)[1])
        assert sorted(expected) == sorted(ring.take(until_ms).tolist())
    while heap:
        oldest = set(ring.take_oldest().tolist())
        due = {r: due_ms for due_ms, r in heap}
        assert max(due[r] for r in oldest) < min((due[r] for r in due.keys() - oldest), default=100)
        heap = [item for item in heap if item[1] not in oldest]
    assert 0 == ring.take_oldest().size
