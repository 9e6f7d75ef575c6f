"""Rows of the join's table as bytes, column by column, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_table import CHANGING, Cohort, JoinTable, Rows
from tailrace.core.outcome_table import STORED, OutcomeTable, Said

MAX_ROWS = 10_000
MAX_TEXT_BYTES = 1_000_000
"""A record has to stay below what the broker takes, 3 MB; a row that changed takes 65 bytes besides its text."""
_FIXED = ("event_time_ms", "score", "flags")
_READ = 10_000
"""Texts that are decoded at once: more, and the garbage collector is kept busy with them."""


class Added(msgspec.Struct):
    """Predictions that came: columns as little-endian bytes; `cohort` (int32) numbers the entries of `cohorts`."""

    serial: bytes
    columns: dict[str, bytes]
    cohort: bytes
    cohorts: list[Cohort]
    lengths: bytes
    texts: bytes


class Reported(msgspec.Struct):
    """Outcomes with ids that came: the serial number of their event's first prediction, int64, ids, and columns."""

    serial: bytes
    ids: list[str]
    columns: dict[str, bytes]


class Batch(msgspec.Struct):
    """What a batch did to the table. Rows go by their serial number, int64; it is never used again."""

    expires_ms: int
    added: Added | None
    touched: bytes
    columns: dict[str, bytes]
    gone: bytes
    reported: Reported | None = None


def batches(
    table: JoinTable, outcomes: OutcomeTable | None, added: Rows, touched: Rows, gone: Rows, expires_ms: int
) -> Iterator[Batch]:
    """What a batch did, in records of limited size; int64 rows each, `added` in order of arrival."""
    for part in packed(table, added):
        yield Batch(expires_ms, part, b"", {}, b"")
    for start in range(0, max(len(touched), len(gone)), MAX_ROWS):
        changed, freed = touched[start : start + MAX_ROWS], gone[start : start + MAX_ROWS]
        columns = {name: getattr(table, name)[changed].tobytes() for name in CHANGING}
        yield Batch(expires_ms, None, table.serial[changed].tobytes(), columns, table.serial[freed].tobytes())
    if outcomes is not None:
        changed = outcomes.take_touched()
        for start in range(0, len(changed), MAX_ROWS):
            yield Batch(expires_ms, None, b"", {}, b"", _reported(table, outcomes, changed[start : start + MAX_ROWS]))


def packed(table: JoinTable, rows: Rows) -> Iterator[Added]:
    """Predictions in order of arrival, in parts of limited size."""
    for part in _parts(table, rows):
        yield _pack(table, part)


def _reported(table: JoinTable, outcomes: OutcomeTable, rows: Rows) -> Reported:
    serial = table.serial[outcomes.head[rows]]
    columns = {name: getattr(outcomes, name)[rows].tobytes() for name in STORED}
    return Reported(serial.tobytes(), [outcomes.ids[row] for row in rows.tolist()], columns)


def read_outcomes(found: Sequence[Batch], table: JoinTable, outcomes: OutcomeTable) -> None:
    """Enters the outcomes of all batches, of events that `read_batches` has found to be still there."""
    rows = table.live()
    serials = table.serial[rows]
    for reported in [batch.reported for batch in found if batch.reported is not None]:
        at, known = _places(serials, np.frombuffer(reported.serial, np.int64))
        none = bytes(len(known) * outcomes.source.itemsize)  # format 3 did not know who reported
        said = (
            np.frombuffer(reported.columns.get(name, none), getattr(outcomes, name).dtype)[known] for name in STORED
        )
        outcomes.put(rows[at], [reported.ids[place] for place in np.flatnonzero(known).tolist()], Said(*said))
    outcomes.touched = []


def read_batches(found: Sequence[Batch]) -> tuple[JoinTable, Rows]:
    """Applies batches in order.

    Returns:
        The table, and int64 (n,) the first row of each event in it.
    """
    table = JoinTable()
    for batch in found:
        if batch.added is not None:
            rows = unpack(table, batch.added)
            table.serial[rows] = np.frombuffer(batch.added.serial, np.int64)
            table.next_serial = int(table.serial[rows[-1]]) + 1
    rows = table.live()
    serials = table.serial[rows]
    gone = [np.empty(0, np.int64)]
    for batch in found:
        changed = np.frombuffer(batch.touched, np.int64)
        at, known = _places(serials, changed)
        for name, data in batch.columns.items():
            column = getattr(table, name)
            column[rows[at]] = np.frombuffer(data, column.dtype)[known]
        left = np.frombuffer(batch.gone, np.int64)
        gone.append(rows[_places(serials, left)[0]])
        # What was erased is told of nowhere else by then, and its numbers must not come again while this is told.
        table.next_serial = max(table.next_serial, int(left.max(initial=-1)) + 1)
    table.remove(np.unique(np.concatenate(gone)))
    return table, _index(table)


def _places(serials: NDArray[np.int64], asked: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Places of serial numbers among all, and which of those asked for are there."""
    at = np.searchsorted(serials, asked)
    known = at < len(serials)
    known[known] = serials[at[known]] == asked[known]
    return at[known], known


def _index(table: JoinTable) -> Rows:
    """Enters rows in the index and chains those of one event; gives the first of each."""
    heads = [np.empty(0, np.int64)]
    live = table.live()
    for start in range(0, len(live), _READ):
        rows = live[start : start + _READ]
        first = table.index.enter(table.event_ids(rows), rows)
        for row, head in zip(rows[first != rows].tolist(), first[first != rows].tolist(), strict=True):
            table.next[table.chain(head)[-1]], table.head[row] = row, head
        heads.append(rows[first == rows])
    return np.concatenate(heads)


def _parts(table: JoinTable, rows: Rows) -> Iterator[Rows]:
    if len(rows) > 1 and (len(rows) > MAX_ROWS or sum(map(len, table.texts[rows])) > MAX_TEXT_BYTES):
        middle = len(rows) // 2
        yield from _parts(table, rows[:middle])
        yield from _parts(table, rows[middle:])
    elif len(rows):
        yield rows


def _pack(table: JoinTable, rows: Rows) -> Added:
    numbers, cohort = np.unique(table.cohort[rows], return_inverse=True)
    # By what they say: numbers of cohorts depend on when the table was restored.
    order = sorted(range(len(numbers)), key=lambda at: table.cohorts[numbers[at]])
    place = np.argsort(np.array(order))
    texts = table.texts[rows].tolist()
    return Added(
        serial=table.serial[rows].tobytes(),
        columns={name: getattr(table, name)[rows].tobytes() for name in _FIXED},
        cohort=place[cohort].astype(np.int32).tobytes(),
        cohorts=[table.cohorts[number] for number in numbers[order].tolist()],
        lengths=np.array([len(text) for text in texts], dtype=np.int32).tobytes(),
        texts=b"".join(texts),
    )


def unpack(table: JoinTable, added: Added) -> Rows:
    """Adds what was packed, each as the only prediction of its event; gives its rows, int64 (n,)."""
    ends = np.cumsum(np.frombuffer(added.lengths, np.int32)).tolist()
    texts = [added.texts[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    numbers = np.array(table.cohort_numbers(added.cohorts), dtype=np.int32)
    event_time_ms, score, flags = (np.frombuffer(added.columns[name], getattr(table, name).dtype) for name in _FIXED)
    return table.add(texts, event_time_ms, score, numbers[np.frombuffer(added.cohort, np.int32)], flags)
