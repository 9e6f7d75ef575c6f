"""Metrics in money and of the first predictions of a day: against scikit-learn, split over workers, taken back."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from tailrace.contracts.quality import Quality
from tailrace.core.join_table import ACTIVATED, DECIDED, JoinTable
from tailrace.core.labels import FINAL
from tailrace.core.metrics import merge
from tailrace.core.quality import DAY_MS, QualityWindows
from tailrace.core.scoring import on_grid
from tailrace.core.window_counts import WindowKey
from tailrace.core.window_spec import WindowSpec

THRESHOLD = 0.5
SPEC = WindowSpec(weighted=True, top=5, distinct=False)
ROW = st.tuples(
    st.integers(0, 12),  # score, often the same
    st.booleans(),
    st.integers(0, 30_000),  # hundredths
    st.integers(0, 3),  # worker
    st.integers(0, 6),  # card
    st.integers(0, 1),  # day
)
Row = tuple[int, bool, int, int, int, int]


def table_of(rows: list[tuple[int, Row]]) -> tuple[JoinTable, NDArray[np.int64]]:
    """Predictions by number, each with its label."""
    table = JoinTable()
    texts = [
        msgspec.json.encode((f"p{number:04d}", f"e{number}", f"card{row[4]}", {}, row[2] / 100)) for number, row in rows
    ]
    scores = on_grid(np.array([(row[0] + 0.5) / 13 for _, row in rows]))
    cohort = table.cohort_numbers([("champion", "1", b"{}")] * len(rows))
    flags = np.where(scores >= THRESHOLD, DECIDED | ACTIVATED, ACTIVATED)
    places = table.add(texts, [row[5] * DAY_MS + number for number, row in rows], scores, cohort, flags)
    table.label[places] = [float(row[1]) for _, row in rows]
    table.status[places] = FINAL
    return table, places


def counted(rows: list[tuple[int, Row]], spec: WindowSpec = SPEC) -> QualityWindows:
    windows = QualityWindows(spec)
    if rows:
        windows.add_rows(*table_of(rows))
    return windows


def records(windows: QualityWindows) -> list[Quality]:
    return [
        windows.record(key, use_case="u", label_name="l", threshold=THRESHOLD, watermark_ms=0)
        for key in sorted(windows)
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=60), st.booleans())
def test_windows_of_four_workers_merge_to_those_of_one_bit_for_bit(drawn: list[Row], distinct: bool) -> None:
    spec = SPEC._replace(distinct=distinct)
    rows = list(enumerate(drawn))
    one = counted(rows, spec)
    merged = QualityWindows(spec)
    parts = [counted([row for row in rows if row[1][3] == worker], spec) for worker in range(4)]
    for part in parts:
        for key in part:
            stored = msgspec.json.encode(part.counts(key))
            merged.restore(key, msgspec.json.decode(stored, type=type(part.counts(key))))
    assert records(merged) == records(one)
    assert merge([q for part in parts for q in records(part)]) == merge(records(one))


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=40), st.booleans())
def test_first_predictions_are_those_that_sorting_all_of_them_finds(drawn: list[Row], distinct: bool) -> None:
    rows = list(enumerate(drawn))
    windows = QualityWindows(SPEC._replace(distinct=distinct))
    for start in range(0, len(rows), 7):  # in batches, the labels after the next
        windows.add_rows(*table_of(rows[start : start + 7]))
    for day in {row[5] for _, row in rows}:
        ordered = sorted(((-row[0], f"p{number:04d}", row) for number, row in rows if row[5] == day))
        if distinct:
            seen: dict[int, Any] = {}
            for entry in ordered:
                seen.setdefault(entry[2][4], entry)
            ordered = sorted(seen.values())
        (record,) = (q for q in records(windows) if q.window_start_ms == day * DAY_MS)
        assert [entry.prediction_id for entry in record.top] == [name for _, name, _ in ordered[: SPEC.top]]
        expected = np.mean([row[1] for _, _, row in ordered[: SPEC.top]])
        assert record.metrics["top_precision"] == pytest.approx(expected, abs=1e-12)


def test_metrics_in_money_are_those_of_scikit_learn_weighted_by_amount() -> None:
    rng = np.random.default_rng(2)
    n = 4_000
    steps, stake = rng.integers(0, 13, n), rng.integers(0, 30_000, n)
    fraud = rng.random(n) < steps / 14
    rows = [(at, (int(steps[at]), bool(fraud[at]), int(stake[at]), 0, 0, 0)) for at in range(n)]
    (record,) = records(counted(rows))
    scores = on_grid((steps + 0.5) / 13)
    decided, amounts = scores >= THRESHOLD, stake / 100
    found = record.metrics
    assert found["amount_roc_auc"] == pytest.approx(roc_auc_score(fraud, scores, sample_weight=amounts), abs=1e-9)
    assert found["amount_recall"] == pytest.approx(recall_score(fraud, decided, sample_weight=amounts), abs=1e-9)
    assert found["amount_precision"] == pytest.approx(precision_score(fraud, decided, sample_weight=amounts), abs=1e-9)
    assert found["amount_caught"] == pytest.approx(amounts[fraud & decided].sum(), abs=1e-6)
    assert found["amount_missed"] == pytest.approx(amounts[fraud & ~decided].sum(), abs=1e-6)
    assert found["amount_false_alarms"] == pytest.approx(amounts[~fraud & decided].sum(), abs=1e-6)


@given(st.lists(ROW, min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_a_label_that_is_taken_back_leaves_no_money_and_no_name_behind(drawn: list[Row]) -> None:
    rows = list(enumerate(drawn))
    windows, table = QualityWindows(SPEC), table_of(rows)
    windows.predicted(*table)
    before = [msgspec.structs.replace(q, metrics={}) for q in records(windows)]
    windows.labelled(*table, table[0].label[table[1]])
    windows.labelled(*table, table[0].label[table[1]], -1)
    assert [msgspec.structs.replace(q, metrics={}) for q in records(windows)] == before


def test_names_are_kept_of_the_whole_and_not_of_slices() -> None:
    windows = QualityWindows(SPEC)
    table = JoinTable()
    text = msgspec.json.encode(("p", "e", "card", {}, 3.5))
    cohort = table.cohort_numbers([("champion", "1", b'{"channel":"web"}')])
    windows.predicted(table, table.add([text], [0], [0.5], cohort, [ACTIVATED]))
    found = {q.slice: q for q in records(windows)}
    assert [entry.prediction_id for entry in found[""].top] == ["p"]
    assert found["channel=web"].top == []
    assert WindowKey(0, "champion", "1", "channel=web") in set(windows)


def test_a_use_case_that_asks_for_none_of_it_holds_none_of_it() -> None:
    (record,) = records(counted([(0, (3, True, 5, 0, 0, 0))], WindowSpec()))
    assert (record.amounts, record.top, record.top_size) == ([], [], 0)
    assert "top_precision" not in record.metrics
    assert "amount_caught" not in record.metrics
