"""Closed events that are packed: feedback says the same bytes, whichever of them are, and whatever wakes them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from disordered import WALL_MS, batches
from hypothesis import given
from hypothesis import strategies as st
from naive_feedback import NaiveFeedback, Record
from test_equal_to_naive import CHAMPION, TOPICS, Worker, digests

from tailrace.core import closed_events, join_table
from tailrace.core.event_blocks import add, pack, unpack
from tailrace.core.join_records import Arrivals, JoinSpec, Scored
from tailrace.core.join_table import CHANGING, JoinTable
from tailrace.core.joins import JoinState
from tailrace.core.lost_outcomes import Span, united
from tailrace.core.scoring import on_grid

NOTHING = msgspec.Raw(b"{}")
SPEC = JoinSpec(window_ms=100, skew_ms=5, lateness_ms=10, correction_ms=1_000, hold_ms=50, max_events=40)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_events, "BLOCK", 4)
    monkeypatch.setattr(closed_events, "AT_ONCE", 32)
    monkeypatch.setattr(join_table, "LEAST_RENUMBERED", 64)


@pytest.mark.parametrize(("closes", "if_absent"), [("window", False), ("outcome", False), ("window", None)])
@pytest.mark.parametrize("seed", range(2))
def test_feedback_that_packs_puts_out_what_the_naive_feedback_puts_out(
    tmp_path: Path, seed: int, closes: str, if_absent: bool | None
) -> None:
    worker = Worker(tmp_path, closes, if_absent)
    naive = NaiveFeedback(worker.use_case, CHAMPION)
    expected: list[Record] = []
    most = 0
    for at, batch in enumerate(batches(worker.use_case, seed)):
        expected += naive.process(batch, WALL_MS + at)
        worker.outputs += worker.processor.process(batch, WALL_MS + at)
        most = max(most, packed(worker))
    assert most > 100
    assert digests(expected) == digests(worker.said())


def test_worker_that_packs_and_is_killed_labels_as_if_nothing_had_happened(tmp_path: Path) -> None:
    calm, killed = Worker(tmp_path / "calm", "window", False), Worker(tmp_path / "killed", "window", False)
    rng = np.random.default_rng(5)
    for at, batch in enumerate(batches(calm.use_case, 5)):
        for worker in (calm, killed):
            worker.outputs += worker.processor.process(batch, WALL_MS + at)
        if rng.random() < 0.3:
            killed.restart()
    labels = [sorted((r for r in world.said() if r[0] == TOPICS.labels), key=str) for world in (calm, killed)]
    assert labels[0] == labels[1]


def test_events_whose_outcomes_may_be_lost_are_left_out_whether_or_not_they_are_packed(tmp_path: Path) -> None:
    packing, whole = Worker(tmp_path / "packing", "window", False), Worker(tmp_path / "whole", "window", False)
    whole.processor._state.labels[0]._packs = False
    spans: list[Span] = []
    woken = 0
    for at, batch in enumerate(batches(packing.use_case, 5)):
        for worker in (packing, whole):
            worker.outputs += worker.processor.process(batch, WALL_MS + at)
        table = whole.processor._state.labels[0].table
        rows = table.in_use()
        if at % 5 == 4 and rows.size:
            first_ms = int(np.quantile(table.event_time_ms[rows], 0.3))
            spans = united([*spans, (first_ms, first_ms + 60_000)])
            before = packed(packing)
            for worker in (packing, whole):
                worker.processor._state.labels[0].set_aside((), spans)
            woken += before - packed(packing)
    assert woken > 0
    assert digests(packing.said()) == digests(whole.said())


def packed(worker: Worker) -> int:
    """Events that the worker keeps and that are not in its table."""
    state = worker.processor._state
    return sum(len(label.table.index) - len(set(label.table.head[label.table.in_use()])) for label in state.labels)


@pytest.mark.parametrize("seed", range(5))
def test_which_events_are_evicted_does_not_depend_on_which_are_packed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    states = [JoinState(SPEC), JoinState(SPEC)]
    clock = 0
    for _ in range(60):
        # Several of one time, and some that come so late that they are closed beside those of another day.
        times = [max(clock - int(late), 0) for late in rng.choice([0, 0, 1, 20, 600], int(rng.integers(1, 12)))]
        made = [_scored(f"e{rng.integers(10**9)}", time_ms) for time_ms in times]
        clock += int(rng.integers(0, 60))
        gone = []
        for at, state in enumerate(states):
            state.predict(Arrivals.of(made))
            state.advance(clock)
            state.forget()
            rows = state.take_gone()
            gone.append(sorted(text.event_id for text in state.table.read(rows)))
            state.table.remove(rows)
            if at == 0:
                state.pack(clock)
        assert gone[0] == gone[1]
        assert (states[0].counts, states[0].side, len(states[0])) == (states[1].counts, states[1].side, len(states[1]))
    assert states[0].counts["evicted_closed"] > 0
    assert len(states[0].table) < len(states[1].table)


drawn = st.lists(
    st.tuples(st.sampled_from(["a", "bé", "c"]), st.integers(0, 2**45), st.sampled_from([0.0, 0.1, 0.5, -7.5, 1e9])),
    min_size=1,
    max_size=12,
)


@given(drawn, st.booleans(), st.data())
def test_rows_come_back_bit_by_bit(made: list[tuple[str, int, float]], on: bool, data: st.DataObject) -> None:
    scores = [float(on_grid(np.array([0.3]))[0]) if on else score for _, _, score in made]
    scored = [
        msgspec.structs.replace(_scored(event, time_ms), prediction_id=f"{at}", score=score)
        for at, ((event, time_ms, _), score) in enumerate(zip(made, scores, strict=True))
    ]
    state = JoinState(SPEC)
    state.predict(Arrivals.of(scored))
    table = state.table
    for name in CHANGING:
        column = getattr(table, name)
        column[: len(scored)] = [data.draw(st.integers(0, 1)) for _ in scored]
    heads = np.unique(table.head[table.in_use()]).astype(np.int64)
    again = JoinTable()
    block = pack(table, heads)
    unpacked = unpack(block, range(len(heads)))
    rows, back = table.expand(heads)[0], again.expand(add(again, block, unpacked))[0]
    for name in ("event_time_ms", "score", "flags", "serial", "aside", *CHANGING, "texts"):
        assert getattr(table, name)[rows].tolist() == getattr(again, name)[back].tolist(), name
    cohorts = [[one.cohorts[number] for number in one.cohort[of]] for one, of in ((table, rows), (again, back))]
    assert cohorts[0] == cohorts[1]


def _scored(event: str, time_ms: int) -> Scored:
    return Scored(f"{event}:champion", event, "k", NOTHING, NOTHING, time_ms, "champion", "1", 0.5, True)
