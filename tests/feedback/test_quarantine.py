"""Labels of a source in quarantine, or of events that may have lost theirs: published, and counted in no window."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.records import LabelledPrediction
from tailrace.contracts.retraining import Quarantined
from tailrace.core.join_table import DECIDED
from tailrace.core.joins import Arrivals, JoinSpec, Outcome, Reports, Scored
from tailrace.core.labels import FINAL
from tailrace.core.lost_outcomes import Span
from tailrace.core.quality import QualityWindows
from tailrace.core.trust import Trust, tier_of
from tailrace.feedback.changelog import Changelog, newest_of
from tailrace.feedback.label_state import LabelState
from tailrace.feedback.label_writer import LabelWriter

DAY_MS = 86_400_000
TRUST: dict[str, Trust] = {"analyst": "human"}
SPEC = JoinSpec(window_ms=1_000, lateness_ms=10, correction_ms=20_000, hold_ms=500, trust=TRUST)
NAMES = ("analyst", "honest", "liar")
NOTHING = msgspec.Raw(b"{}")


def predicted(at: int, time_ms: int) -> Arrivals:
    score = (at % 19 + 1) / 20
    return Arrivals.of(
        [
            Scored(f"e{at}:{v}", f"e{at}", "k", NOTHING, NOTHING, time_ms, v, "1", score, score > 0.5)
            for v in ("champion", "shadow")
        ]
    )


def reported(at: int, source: str, value: float, time_ms: int, revision: int) -> Reports:
    return Reports.of(
        [f"e{at}"], [Outcome(revision, False, value, time_ms, source=source, tier=tier_of(TRUST, source))]
    )


def recounted(state: LabelState, spans: list[Quarantined], lost: list[Span]) -> QualityWindows:
    """Windows from nothing but the table: twin of what is added and taken back one by one."""
    table, windows = state.table, QualityWindows()
    rows = table.live()
    windows.predicted(table, rows)
    final = rows[table.status[rows] == FINAL]
    kept = [row for row in final.tolist() if not (_in_quarantine(state, row, spans) or _is_lost(state, row, lost))]
    chosen: NDArray[np.int64] = np.array(kept, dtype=np.int64)
    windows.labelled(table, chosen, table.label[chosen])
    return windows


def _in_quarantine(state: LabelState, row: int, spans: list[Quarantined]) -> bool:
    source = state.source_names[state.table.told_by[row]]
    time_ms = int(state.table.event_time_ms[row])
    return any(s.source == source and s.since_ms <= time_ms < (s.until_ms or 2**62) for s in spans)


def _is_lost(state: LabelState, row: int, lost: list[Span]) -> bool:
    return any(start <= int(state.table.event_time_ms[row]) < end for start, end in lost)


def finals(windows: QualityWindows) -> dict[str, tuple[list[int], ...]]:
    return {key.text(): tuple(column.tolist() for column in windows.histogram([key])) for key in windows}


def test_windows_hold_what_a_recount_without_the_labels_that_are_set_aside_gives_and_a_restart_restores_it() -> None:
    rng = np.random.default_rng(1)
    state, changelog, log = LabelState(SPEC, 100 * DAY_MS), Changelog("c", 50_000), []
    spans: list[Quarantined] = []
    lost: list[Span] = []
    for step in range(120):
        now_ms = step * 100
        state.predict(predicted(step, now_ms))
        for _ in range(3):
            at = int(rng.integers(max(step - 15, 0), step + 1))
            source, value = NAMES[int(rng.integers(3))], float(rng.integers(2))
            state.observe(reported(at, source, value, at * 100 + int(rng.integers(900)), int(rng.integers(4))))
        state.advance(now_ms)
        if step == 40:
            spans = [Quarantined(source="liar", since_ms=2_000)]
        if step == 80:
            spans = [Quarantined(source="liar", since_ms=2_000, until_ms=5_000)]
        if step == 50:
            lost = [(3_100, 4_200)]
        if step == 90:
            lost = [(3_100, 4_200), (8_000, 9_500)]
        if spans or lost:
            state.set_aside(spans, lost)
        assert finals(recounted(state, spans, lost)) == finals(state.windows)
        log += [(output.key or b"", output.value) for output in state.store(changelog)]
        if step in (60, 100):
            restored = Changelog("c", 50_000).restore(newest_of(log))
            again = LabelState(SPEC, 100 * DAY_MS, restored, now_ms)
            again.set_aside(spans, lost)
            assert finals(state.windows) == finals(again.windows)
            assert state.source_names == again.source_names
    assert state.table.aside.any()


def test_labels_in_quarantine_are_published_with_their_source() -> None:
    state, writer = LabelState(SPEC, 100 * DAY_MS), LabelWriter("labels", "u", "paid")
    state.predict(predicted(1, 0))
    state.set_aside([Quarantined(source="liar", since_ms=0)])
    changes = state.observe(reported(1, "liar", 1.0, 5, 0))
    records = writer.records(state.table, changes, state.sources)
    assert {"liar"} == {msgspec.json.decode(record.value or b"", type=LabelledPrediction).source for record in records}
    corrected = state.observe(reported(1, "analyst", 0.0, 5, 0))
    told = [
        msgspec.json.decode(r.value or b"", type=LabelledPrediction)
        for r in writer.records(state.table, corrected, state.sources)
    ]
    assert {("analyst", 0.0)} == {(record.source, record.label) for record in told}
    assert bool(state.table.flags[0] & DECIDED) is False
