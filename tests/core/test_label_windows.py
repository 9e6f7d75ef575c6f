"""Windows over labels: whatever is revised, taken back or told twice, a row is what the newest labels add up to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.label_windows import SLACK_MS, LabelState, evaluate
from tailrace.usecase.load import load_use_case

HOUR_MS = 3_600_000
SPAN_MS = 7 * 24 * HOUR_MS
[VIEW] = load_use_case(Path("feature_repo"), "card_fraud").plan.online_views

Known = tuple[int, int, int, float | None, bool]
known = st.tuples(
    st.integers(0, 5),  # prediction
    st.integers(1, 4),  # version
    st.integers(0, 8 * 24).map(lambda hours: hours * HOUR_MS),
    st.sampled_from([None, 0.0, 1.0, 3.0]),
    st.booleans(),
)


def naive(records: list[Known], as_of_ms: int) -> tuple[float, float]:
    """Count and mean of the window that ends at a time."""
    entries: list[tuple[int, float, float, int, int]] = []
    for prediction, version, at_ms, label, fresh in records:
        mine = [entry for entry in entries if entry[3] == prediction]
        if any(entry[4] >= version for entry in mine) or (not mine and (label is None or not fresh)):
            continue
        count = float(label is not None) - sum(entry[1] for entry in mine)
        entries.append((at_ms, count, (label or 0.0) - sum(entry[2] for entry in mine), prediction, version))
    within = [entry for entry in entries if as_of_ms - SPAN_MS < entry[0] <= as_of_ms]
    count, total = sum(entry[1] for entry in within), sum(entry[2] for entry in within)
    return count, total / count if count > 0 else 0.0


@given(st.lists(known, min_size=1, max_size=30))
def test_rows_are_those_of_the_naive_twin_before_and_after_a_restart(records: list[Known]) -> None:
    # Records of a prediction come in the order of their times, as feedback writes them, and corrections after the first.
    records.sort(key=lambda record: record[2])
    first = {record[0]: at for at, record in reversed(list(enumerate(records)))}
    records = [(*record[:4], record[4] and at == first[record[0]]) for at, record in enumerate(records)]
    state = LabelState(VIEW)
    changed = [state.apply("m", *record) for record in records]
    if not any(changed):
        assert state.keys == []
        return
    restored = LabelState(VIEW)
    restored.restore(dict(zip(["m"], state.snapshot(["m"]), strict=True)))
    newest_ms = max(record[2] for record, counted in zip(records, changed, strict=True) if counted)
    for as_of_ms in (newest_ms - SLACK_MS // 2, newest_ms, newest_ms + HOUR_MS, newest_ms + SPAN_MS):
        for one in (state, restored):
            _, _, packed = one.rows(["m"])
            found = evaluate(VIEW, list(packed), np.array([as_of_ms], np.int64))
            assert tuple(found[0].tolist()) == naive(records, as_of_ms)


@given(st.lists(known, min_size=2, max_size=20))
def test_the_order_in_which_predictions_are_told_of_changes_nothing(records: list[Known]) -> None:
    firsts = {record[0]: (record[0], 1, record[2] % SPAN_MS, record[3] or 0.0, True) for record in records}
    orders = [list(firsts.values()), list(reversed(firsts.values()))]
    states = [LabelState(VIEW) for _ in orders]
    for state, order in zip(states, orders, strict=True):
        for record in order:
            state.apply("m", *record)
    assert states[0].snapshot(["m"]) == states[1].snapshot(["m"])
