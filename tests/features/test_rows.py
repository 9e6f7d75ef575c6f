"""Which rows of a fetch the online store is given."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.plan import WindowColumn, WindowView
from tailrace.features.rows import Update, newest

VIEW = WindowView(
    name="card", source="events", entity="card", columns=(WindowColumn(name="n", kind="count", field="", span_ms=1),)
)
EVENTS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=6)


def naive(updates: list[Update]) -> dict[str, tuple[int, float]]:
    """Writes every row, one after the other, unless an older one would replace a newer."""
    store: dict[str, tuple[int, float]] = {}
    for keys, values, times in updates:
        for key, value, at_ms in zip(keys, values[:, 0].tolist(), times.tolist(), strict=True):
            if at_ms >= store.get(key, (at_ms,))[0]:
                store[key] = (at_ms, value)
    return store


@given(st.lists(EVENTS, min_size=1, max_size=4))
def test_one_write_leaves_what_a_write_per_event_would_leave(partitions: list[list[tuple[str, int]]]) -> None:
    updates: list[Update] = []
    for number, events in enumerate(partitions):
        keys, times = [key for key, _ in events], np.array([at for _, at in events], np.int64)
        updates.append((keys, 10.0 * number + np.arange(float(len(events)))[:, None], times))
    row = newest(VIEW, updates)
    written = zip(row.keys, zip(row.timestamps_ms.tolist(), row.values[:, 0].tolist(), strict=True), strict=True)
    assert naive(updates) == dict(written)
