"""Event windows against a naive twin."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.core.plan import WindowColumn, WindowView
from tailrace.core.windows import WindowState
from tailrace.errors import StateCorrupt

KINDS = ("count", "sum", "mean", "std", "min", "max", "distinct")
VIEW = WindowView(
    name="card",
    source="events",
    entity="card_id",
    columns=(
        *(
            WindowColumn(name=f"{kind}_{span}", kind=kind, field="" if kind == "count" else "amount", span_ms=span)  # type: ignore[arg-type]
            for kind in KINDS
            for span in (10, 60)
        ),
        WindowColumn(name="since_last", kind="since_last"),
    ),
)
Event = tuple[str, int, float]
# Multiples of 1/8 add up exactly in binary, so that results compare with ==.
events = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 200), st.integers(-80, 80).map(lambda n: n / 8)), max_size=60
)


def naive(history: Sequence[Event]) -> list[float]:
    """The row as of the last event of a history."""
    key, now, _ = history[-1]
    mine = [(t, x) for k, t, x in history if k == key and t <= now]
    row: list[float] = []
    for column in VIEW.columns[:-1]:
        values = [x for t, x in mine if now - column.span_ms < t]
        match column.kind:
            case "count":
                row.append(len(values))
            case "sum":
                row.append(sum(values))
            case "mean":
                row.append(sum(values) / len(values))
            case "std":
                row.append(float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)
            case "min":
                row.append(min(values))
            case "max":
                row.append(max(values))
            case _:
                row.append(len(set(values)))
    earlier = [t for k, t, _ in history[:-1] if k == key and t <= now]
    return [*row, (now - max(earlier)) / 1000 if earlier else math.nan]


def run(state: WindowState, stream: Sequence[Event], offset: int = 0) -> np.ndarray:
    keys = [key for key, _, _ in stream]
    times = np.array([t for _, t, _ in stream], np.int64)
    fields = np.array([[x] for _, _, x in stream]).reshape(-1, 1)
    return state.update(keys, times, fields, np.arange(offset, offset + len(stream)))


@given(events)
@settings(deadline=None)
def test_rows_equal_the_naive_twin_in_any_order_of_event_time(stream: list[Event]) -> None:
    rows = run(WindowState(VIEW), stream)
    twin = np.array([naive(stream[: at + 1]) for at in range(len(stream))]).reshape(rows.shape)
    np.testing.assert_allclose(rows, twin, rtol=1e-12, atol=1e-12)
    exact = [at for at, column in enumerate(VIEW.columns) if column.kind != "std"]
    np.testing.assert_array_equal(rows[:, exact], twin[:, exact])


@given(events, st.integers(0, 60))
@settings(deadline=None)
def test_restore_equals_continue_and_a_replay_gives_the_same_rows(stream: list[Event], cut: int) -> None:
    whole = WindowState(VIEW)
    rows = run(whole, stream)
    first = WindowState(VIEW)
    run(first, stream[:cut])
    second = WindowState(VIEW)
    second.restore(dict(zip(first.keys, first.snapshot(first.keys), strict=True)))
    np.testing.assert_array_equal(rows, run(second, stream))
    assert whole.snapshot(whole.keys) == second.snapshot(whole.keys)
    np.testing.assert_array_equal(rows, run(second, stream))
    assert whole.snapshot(whole.keys) == second.snapshot(whole.keys)


def test_memory_of_a_hot_key_is_bounded_and_its_counts_stay_within_a_tile() -> None:
    view = WindowView(
        name="v",
        source="events",
        entity="k",
        columns=(
            WindowColumn(name="n", kind="count", span_ms=60_000),
            WindowColumn(name="s", kind="sum", field="x", span_ms=60_000),
        ),
    )
    state = WindowState(view, max_entries=512)
    n = 20_000
    times = np.arange(n, dtype=np.int64) * 10
    rows = state.update(["a"] * n, times, np.ones((n, 1)), np.arange(n))
    assert state.merged > 0
    # Merging waits until the room of a key is full, which is at most twice the bound.
    assert len(state.snapshot(["a"])[0]) < 2 * 512 * 32
    # 6,000 events lie in the span; a tile is 1/60 of it, 100 events.
    assert abs(rows[-1, 0] - 6_000) <= 110
    assert rows[-1, 0] == pytest.approx(rows[-1, 1])


def test_entries_that_no_window_reaches_are_dropped_but_since_last_is_kept() -> None:
    state = WindowState(VIEW)
    for at in range(1_000):
        times = np.array([at * 10_000_000])
        rows = state.update(["a"], times, np.ones((1, len(VIEW.fields))), np.array([at]))
    assert rows[-1, -1] == 10_000.0
    assert len(state.snapshot(["a"])[0]) < 40 * 40


def test_a_snapshot_of_another_format_is_refused() -> None:
    state = WindowState(VIEW)
    run(state, [("a", 1, 1.0)])
    packed = state.snapshot(["a"])[0]
    with pytest.raises(StateCorrupt):
        state.restore({"a": b"\x09" + packed[1:]})


def test_dirty_keys_are_given_once() -> None:
    state = WindowState(VIEW)
    run(state, [("b", 1, 1.0), ("a", 2, 1.0), ("b", 3, 1.0)])
    assert state.take_dirty() == ["a", "b"]
    assert state.take_dirty() == []


def test_keys_that_grow_together_leave_no_gaps_behind_and_keep_their_entries() -> None:
    state, keys = WindowState(VIEW), [f"k{at}" for at in range(2_000)]
    for turn in range(24):
        times = np.full(len(keys), turn)
        rows = state.update(keys, times, np.ones((len(keys), 1)), np.arange(len(keys)) + turn * len(keys))
    counts = [at for at, column in enumerate(VIEW.columns) if column.name == "count_60"]
    assert {24.0} == set(rows[:, counts].ravel())
    assert state.size_bytes < 2_000 * 24 * 32 * 1.5
    again = WindowState(VIEW)
    again.restore(dict(zip(keys, state.snapshot(keys), strict=True)))
    assert state.snapshot(keys) == again.snapshot(keys)


def test_snapshots_that_are_cut_off_or_of_other_columns_are_refused() -> None:
    state = WindowState(VIEW)
    run(state, [("a", 1, 1.0), ("a", 2, 1.0)])
    packed = state.snapshot(["a"])[0]
    for wrong in (packed[:-3], packed[:-8], packed[:8], b""):
        with pytest.raises(StateCorrupt):
            WindowState(VIEW).restore({"a": wrong})


@given(events, st.integers(0, 60), st.sampled_from([8, 16, 4_096]))
@settings(deadline=None)
def test_split_batches_equal_one_batch_even_where_entries_are_merged(
    stream: list[Event], cut: int, max_entries: int
) -> None:
    whole, split = WindowState(VIEW, max_entries=max_entries), WindowState(VIEW, max_entries=max_entries)
    rows = run(whole, stream)
    parts = (run(split, stream[:cut]), run(split, stream[cut:], offset=cut))
    np.testing.assert_array_equal(rows, np.concatenate(parts))
    assert whole.snapshot(whole.keys) == split.snapshot(whole.keys)


BREAK_MS = 10_000_000
"""Longer than entries are kept."""


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=12))
@settings(deadline=None)
def test_rows_equal_the_naive_twin_of_a_key_that_is_busy_and_quiet_in_turn(spells: list[tuple[bool, int]]) -> None:
    stream, now = [], 0
    for busy, count in spells:
        for number in range(count):
            now += 1 if busy else BREAK_MS
            stream.append(("a", now, number / 8))
    rows = run(WindowState(VIEW), stream)
    twin = np.array([naive(stream[: at + 1]) for at in range(len(stream))]).reshape(rows.shape)
    np.testing.assert_allclose(rows, twin, rtol=1e-12, atol=1e-12)


def test_keys_that_take_turns_at_being_busy_need_less_memory_than_all_of_them_at_their_busiest() -> None:
    state, offset = WindowState(VIEW), 0
    for turn in range(24):
        # Of eight groups of fifty keys one is busy; the one before it sends on a little, and outgrows its place once more.
        for group, at_ms, count in ((turn % 8, turn * BREAK_MS, 180), ((turn - 1) % 8, (turn + 1) * BREAK_MS - 1, 20)):
            for number in range(count):
                run(state, [(f"k{group}.{key}", at_ms + number, 1.0) for key in range(50)], offset)
                offset += 50
    assert state.size_bytes < 0.75 * 400 * 180 * 32
