"""Window state forgets keys that no event can need any more, and nobody notices."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.core.plan import WindowColumn, WindowView
from tailrace.core.windows import WindowState

SPANS = (1_000_000, 4_000_000)
BEHIND = 4_000_000
FORGET = SPANS[-1] + BEHIND
STEP = 500_000
VIEW = WindowView(
    name="card",
    source="events",
    entity="card",
    columns=(
        *(WindowColumn(name=f"n_{span}", kind="count", span_ms=span) for span in SPANS),
        WindowColumn(name="s", kind="sum", field="amount", span_ms=SPANS[-1]),
        WindowColumn(name="since", kind="since_last"),
    ),
)
Event = tuple[str, int]
EVENTS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 12), st.integers(0, 8)), max_size=60)


def stream_of(drawn: list[tuple[str, int, int]]) -> list[Event]:
    """Time goes on by the first number of a draw, now and then; the event is late by the second, never by too much."""
    clock, events = 0, []
    for key, ahead, late in drawn:
        clock += ahead // 3 * STEP
        events.append((key, max(clock - min(late * STEP, BEHIND), 0)))
    return events


def naive(history: list[Event]) -> list[float]:
    """The row as of the last event; `since` knows only of keys that were not silent for too long."""
    key, now = history[-1]
    times = [t for k, t in history if k == key and t <= now]
    row = [float(sum(now - span < t for t in times)) for span in SPANS]
    seen: list[int] = []
    clock = -math.inf
    for k, t in history[:-1]:
        if k == key and seen and clock - max(seen) >= FORGET:
            seen = []
        clock = max(clock, t)
        seen += [t] if k == key else []
    if seen and clock - max(seen) >= FORGET:
        seen = []
    earlier = [t for t in seen if t <= now]
    return [*row, row[-1] / 8, (now - max(earlier)) / 1000 if earlier else math.nan]


def run(state: WindowState, events: list[Event], offset: int) -> np.ndarray:
    times = np.array([t for _, t in events], np.int64)
    fields = np.full((len(events), 1), 1 / 8)
    return state.update([k for k, _ in events], times, fields, np.arange(offset, offset + len(events)))


@given(EVENTS, st.lists(st.integers(0, 60), max_size=6))
@settings(deadline=None)
def test_rows_equal_the_naive_twin_however_often_it_is_swept_and_restored(
    drawn: list[tuple[str, int, int]], cuts: list[int]
) -> None:
    events = stream_of(drawn)
    expected = np.array([naive(events[: at + 1]) for at in range(len(events))]).reshape(-1, len(VIEW.columns))
    whole, cut = (WindowState(VIEW, max_behind_ms=BEHIND) for _ in range(2))
    np.testing.assert_array_equal(expected, run(whole, events, 0))
    changelog: dict[str, bytes | None] = {}
    places = [0, *sorted(min(at, len(events)) for at in cuts), len(events)]
    for begin, end in pairwise(places):
        np.testing.assert_array_equal(expected[begin:end], run(cut, events[begin:end], begin))
        dirty = cut.take_dirty()
        changelog |= dict(zip(dirty, cut.snapshot(dirty), strict=True)) | dict.fromkeys(cut.take_forgotten())
        cut = WindowState(VIEW, max_behind_ms=BEHIND)
        cut.restore(changelog)


def test_memory_is_that_of_the_keys_in_use() -> None:
    state, forgotten = WindowState(VIEW, max_behind_ms=BEHIND), 0
    for turn in range(200):
        events = [(f"{turn}-{number}", turn * STEP) for number in range(100)]
        run(state, events, turn * 100)
        forgotten += len(state.take_forgotten())
    in_use = 100 * FORGET // STEP
    assert len(state.keys) < 1.5 * in_use
    assert state.size_bytes < 1.5 * in_use * 4 * 32 + 2 * 4_096 * 32
    assert forgotten + len(state.keys) == 20_000


def test_a_key_that_has_come_again_is_not_said_to_be_forgotten() -> None:
    state = WindowState(VIEW, max_behind_ms=BEHIND)
    run(state, [("a", 0), ("b", 10 * FORGET)], 0)
    run(state, [("a", 10 * FORGET)], 2)
    assert state.take_forgotten() == []
    assert state.take_dirty() == ["a", "b"]


def test_a_key_forgotten_by_the_changelog_is_as_though_it_had_never_come() -> None:
    state = WindowState(VIEW, max_behind_ms=BEHIND)
    run(state, [("a", 0), ("b", 0)], 5)
    state.restore({"a": None, "never": None})
    rows = run(state, [("a", 1), ("b", 1)], 0)
    # The event of b lies before the offset b holds: a replay, not counted again.
    assert [1.0, 0.0] == rows[:, 0].tolist()
