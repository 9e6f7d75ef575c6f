"""Recordings become records of the declared type, or every mismatch is listed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from tailrace.backends.recordings import read_recording, to_recording
from tailrace.errors import UseCaseError
from tailrace.usecase.sources import Event, Topic


class Payment(Event):
    payment_id: str
    amount_eur: float
    fraud: bool
    paid_at_ms: int
    note: str | None = None


TOPIC = Topic("payments", Payment, key="payment_id", event_time="paid_at_ms")
TIMES = [datetime(2025, 1, day, tzinfo=UTC) for day in (2, 1)]
TABLE = pa.table(
    {
        "payment_id": pa.array([7, 8], pa.int32()),
        "amount_eur": [1, 2],
        "fraud": pa.array([0, 1], pa.int8()),
        "event_time": pa.array(TIMES, pa.timestamp("ms", tz="UTC")),
        "market": ["a", "b"],
    }
)
EXPECTED = [
    {"payment_id": "8", "amount_eur": 2.0, "fraud": True, "paid_at_ms": 1_735_689_600_000},
    {"payment_id": "7", "amount_eur": 1.0, "fraud": False, "paid_at_ms": 1_735_776_000_000},
]


def _values(path: Path) -> list[object]:
    recording = read_recording(path, TOPIC)
    return [msgspec.json.decode(value) for _, value in recording.encoded(slice(0, len(recording)))]


def test_columns_are_cast_to_the_fields_and_sorted_in_time(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(TABLE, tmp_path / "p.parquet")
    assert EXPECTED == _values(tmp_path / "p.parquet")


def test_csv_and_json_lines_say_the_same_as_parquet(tmp_path: Path) -> None:
    pyarrow.csv.write_csv(TABLE, tmp_path / "p.csv")
    lines = [{**row, "event_time": row["event_time"].isoformat()} for row in TABLE.to_pylist()]
    (tmp_path / "p.jsonl").write_bytes(b"\n".join(msgspec.json.encode(line) for line in lines))
    assert EXPECTED == _values(tmp_path / "p.csv")
    assert EXPECTED == _values(tmp_path / "p.jsonl")


def test_every_record_decodes_as_the_declared_type() -> None:
    recording = to_recording(TABLE, TOPIC)
    decoded = [msgspec.json.decode(value, type=Payment) for _, value in recording.encoded(slice(0, 2))]
    assert ["8", "7"] == [payment.payment_id for payment in decoded]
    assert [b"8", b"7"] == [key for key, _ in recording.encoded(slice(0, 2))]


def test_columns_without_a_field_are_named() -> None:
    assert ("market",) == to_recording(TABLE, TOPIC).ignored


def test_all_mismatches_are_listed_with_the_nearest_name() -> None:
    table = TABLE.rename_columns(["payment_ids", "amount", "fraud", "event_time", "market"])
    with pytest.raises(UseCaseError) as caught:
        to_recording(table, TOPIC)
    assert 2 == len(caught.value.findings)
    assert "nearest is 'payment_ids'" in caught.value.findings[0]
    assert "nearest is 'amount'" in caught.value.findings[1]


def test_a_column_of_another_kind_is_a_finding() -> None:
    table = TABLE.set_column(1, "amount_eur", pa.array(["ten", "eleven"]))
    with pytest.raises(UseCaseError, match="amount_eur"):
        to_recording(table, TOPIC)


def test_slices_hold_their_beginning_and_not_their_end() -> None:
    recording = to_recording(TABLE, TOPIC)
    assert slice(0, 1) == recording.between(1_735_689_600_000, 1_735_776_000_000)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UseCaseError, match="no known format"):
        read_recording(tmp_path / "events.xlsx", TOPIC)
