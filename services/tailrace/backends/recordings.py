"""Recorded events and outcomes: files read into columns of a declared type, sorted in time."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tailrace.errors import UseCaseError
from tailrace.usecase.sources import Topic

TIME_COLUMNS = ("event_time", "outcome_time")
"""Column names that stand for the topic's event time field in any recording."""


@dataclass(frozen=True)
class Recording:
    """Records of one topic, oldest first.

    `times_ms` int64 (n,), epoch milliseconds, ascending; `columns` one Arrow array of length n per
    field of the event type; `ignored` names the columns of the file that no field takes.
    """

    topic: Topic
    times_ms: NDArray[np.int64]
    columns: dict[str, pa.Array]
    ignored: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.times_ms)

    def between(self, from_ms: int, until_ms: int) -> slice:
        """Positions of the records with from_ms <= time < until_ms."""
        begin, end = np.searchsorted(self.times_ms, [from_ms, until_ms], side="left").tolist()
        return slice(begin, end)

    def encoded(self, rows: slice) -> Iterator[tuple[bytes, bytes]]:
        """Kafka key and JSON value of a range of records."""
        names = list(self.columns)
        lists = [column[rows.start : rows.stop].to_pylist() for column in self.columns.values()]
        keys = lists[names.index(self.topic.key)]
        encode = msgspec.json.Encoder().encode
        for key, *row in zip(keys, *lists, strict=True):
            yield str(key).encode(), encode(dict(zip(names, row, strict=True)))


def read_recording(path: Path, topic: Topic) -> Recording:
    """Reads a Parquet, CSV or JSON Lines file.

    Raises:
        UseCaseError: the file is not to be read, or its columns do not give the topic's type;
            every mismatch is listed with the nearest name.
    """
    return to_recording(_read(path, topic), topic, str(path))


def to_recording(table: pa.Table, topic: Topic, name: str = "table") -> Recording:
    """Casts a table's columns to the fields of a topic's type and sorts them in time.

    A column `event_time` or `outcome_time` fills the topic's event time field, timestamps become
    epoch milliseconds, any other column must have the name of its field.

    Raises:
        UseCaseError: see `read_recording`.
    """
    available = {column: table[column].combine_chunks() for column in table.column_names}
    columns: dict[str, pa.Array] = {}
    findings: list[str] = []
    for info in msgspec.structs.fields(topic.schema):
        found = _source_of(info.name, topic, available)
        if found is None:
            if info.required:
                findings.append(_missing(info.name, topic, list(available)))
            continue
        try:
            columns[info.name] = _cast(available[found], info.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            findings.append(f"column {found!r} ({available[found].type}) does not become {info.type}: {error}")
    if findings:
        raise UseCaseError(f"{name} for {topic!r}", findings)
    used = {_source_of(field, topic, available) for field in columns}
    times_ms = columns[topic.event_time].to_numpy(zero_copy_only=False).astype(np.int64)
    if len(times_ms) and bool(np.any(np.diff(times_ms) < 0)):
        order = np.argsort(times_ms, kind="stable")
        times_ms = times_ms[order]
        columns = {field: column.take(pa.array(order)) for field, column in columns.items()}
    return Recording(topic, times_ms, columns, tuple(column for column in available if column not in used))


def _read(path: Path, topic: Topic) -> pa.Table:
    # Imported on use: each reader costs start-up time and one replay needs one of them.
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    readers: dict[str, Any] = {
        ".parquet": pyarrow.parquet.read_table,
        ".csv": pyarrow.csv.read_csv,
        ".jsonl": pyarrow.json.read_json,
        ".ndjson": pyarrow.json.read_json,
    }
    reader = readers.get(path.suffix)
    if reader is None:
        raise UseCaseError(f"{path} for {topic!r}", [f"{path.suffix!r} is no known format; use {', '.join(readers)}"])
    try:
        table: pa.Table = reader(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UseCaseError(f"{path} for {topic!r}", [f"the file cannot be read: {error}"]) from error
    return table


def _source_of(field: str, topic: Topic, available: dict[str, pa.Array]) -> str | None:
    if field in available:
        return field
    if field == topic.event_time:
        return next((name for name in TIME_COLUMNS if name in available), None)
    return None


def _missing(field: str, topic: Topic, available: list[str]) -> str:
    nearest = difflib.get_close_matches(field, available, n=1, cutoff=0.4)
    also = f" (nor {' or '.join(TIME_COLUMNS)})" if field == topic.event_time else ""
    near = f"; the nearest is {nearest[0]!r}" if nearest else ""
    return f"there is no column {field!r}{also}{near}; columns are {', '.join(available)}"


def _cast(column: pa.Array, kind: Any) -> pa.Array:
    if type(None) in get_args(kind):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if column.null_count == 0 and pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kind is int and pa.types.is_temporal(column.type):
        return pc.cast(pc.cast(column, pa.timestamp("ms", tz=getattr(column.type, "tz", None)), safe=False), pa.int64())
    if kind is bool and not pa.types.is_boolean(column.type):
        return pc.cast(pc.cast(column, pa.int64()), pa.bool_())
    if get_origin(kind) is not None or kind is str:
        return pc.cast(column, pa.string())
    targets = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    return pc.cast(column, targets[kind]) if kind in targets else column
