"""Rows of the join's table packed into blocks, a fifth of their size: for events of which little is asked any more.

Columns first lose what follows from others (times from the event's time, a score from its place on the grid), then
the bytes that no value of the block needs; what is left, texts included, is compressed as a whole. Unpacking gives the
rows bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import cramjam
import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_table import NO_OUTCOME, Cohort, JoinTable, Rows
from tailrace.core.scoring import BINS, score_of

LEVEL: Final = 1
"""Of Zstandard: 3 takes half as long again and saves nothing."""
_PLAIN: Final = ("flags", "aside", "version", "label", "status", "outcome", "value", "closed", "source", "told_by")


class _Column(msgspec.Struct, array_like=True, gc=False):
    """Values less their least, in as few bytes as the rest needs; with a `first`, what each is more than the last."""

    kind: str
    data: bytes
    least: int = 0
    first: int | None = None


class _Packed(msgspec.Struct, array_like=True, gc=False):
    sizes: _Column
    columns: dict[str, _Column]
    lengths: _Column
    texts: bytes


class Packed(NamedTuple):
    """Events packed: their rows, and the cohorts that the rows number."""

    data: bytes
    cohorts: tuple[Cohort, ...]


class Unpacked(NamedTuple):
    """Rows of some events, event by event in order of arrival; `first` is int64 (n,), the place of the first of each."""

    first: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]
    texts: list[bytes]


def pack(table: JoinTable, heads: Rows) -> Packed:
    """Packs whole events, int64 (n,) first rows; they stay where they are."""
    rows, places = table.expand(heads)
    columns = {name: getattr(table, name)[rows] for name in _PLAIN}
    numbers, columns["cohort"] = np.unique(table.cohort[rows], return_inverse=True)
    event_time_ms, known, outcome_time_ms = (
        table.event_time_ms[rows],
        columns["outcome"] != NO_OUTCOME,
        table.outcome_time_ms[rows],
    )
    packed = {name: _narrow(column) for name, column in columns.items()}
    packed["serial"], packed["event_time_ms"] = _rising(table.serial[rows]), _rising(event_time_ms)
    packed["known_at_ms"] = _narrow(table.known_at_ms[rows] - event_time_ms)
    packed["outcome_time_ms"] = _narrow(outcome_time_ms - np.where(known, event_time_ms, 0))
    packed["revision"] = _narrow(table.revision[rows])
    if np.array_equal(table.revision[rows], outcome_time_ms):
        # Revisions that are not declared are the outcome's time.
        del packed["revision"]
    packed["score"] = _narrow(_places_on_grid(table, rows))
    texts = table.texts[rows].tolist()
    content = _Packed(
        _narrow(np.bincount(places, minlength=len(heads))),
        packed,
        _narrow(np.array([len(text) for text in texts], dtype=np.int64)),
        b"".join(texts),
    )
    data = bytes(cramjam.zstd.compress(_ENCODER.encode(content), LEVEL))
    return Packed(data, tuple(table.cohorts[number] for number in numbers.tolist()))


def unpack(packed: Packed, events: Sequence[int]) -> Unpacked:
    """Unpacks some events of a block, by their place in it.

    The columns are those of the table but `bin`, `head` and `next`, and `cohort` numbers the cohorts of the block.
    """
    content = _DECODER.decode(bytes(cramjam.zstd.decompress(packed.data)))
    ends = np.cumsum(_values(content.sizes))
    sizes = np.diff(ends, prepend=0)[list(events)]
    first = np.cumsum(sizes) - sizes
    which = np.arange(sizes.sum()) + np.repeat(ends[list(events)] - sizes - first, sizes)
    columns = {name: _values(column)[which] for name, column in content.columns.items()}
    columns["known_at_ms"] = columns["known_at_ms"] + columns["event_time_ms"]
    known = columns["outcome"] != NO_OUTCOME
    columns["outcome_time_ms"] = columns["outcome_time_ms"] + np.where(known, columns["event_time_ms"], 0)
    columns.setdefault("revision", columns["outcome_time_ms"])
    if columns["score"].dtype.kind != "f":
        columns["score"] = score_of(columns["score"])
    stops = np.cumsum(_values(content.lengths))
    starts = np.diff(stops, prepend=0)
    spans = zip((stops - starts)[which].tolist(), stops[which].tolist(), strict=True)
    return Unpacked(first, columns, [content.texts[start:stop] for start, stop in spans])


def add(table: JoinTable, packed: Packed, unpacked: Unpacked) -> Rows:
    """Puts events back into a table as they were; gives their first rows, int64 (n,). Serial numbers go on as before."""
    columns = dict(unpacked.columns)
    numbers = np.array(table.cohort_numbers(packed.cohorts), dtype=np.int32)[columns.pop("cohort")]
    serial = table.next_serial
    rows = table.add(unpacked.texts, columns.pop("event_time_ms"), columns.pop("score"), numbers, columns.pop("flags"))
    table.next_serial = serial
    for name, column in columns.items():
        getattr(table, name)[rows] = column
    heads = rows[unpacked.first]
    sizes = np.diff(unpacked.first, append=len(rows))
    table.head[rows] = np.repeat(heads, sizes)
    follows = np.flatnonzero(table.head[rows] != rows)
    table.next[rows[follows - 1]] = rows[follows]
    return heads


def _places_on_grid(table: JoinTable, rows: Rows) -> NDArray[Any]:
    """Scores as places on the grid, where they lie on it; else as they are: where numbers are predicted."""
    scores = table.score[rows]
    if not bool(((scores > 0.0) & (scores < 1.0)).all()):
        return scores
    places = table.bins(rows)
    assert places.max() < BINS
    return places if np.array_equal(score_of(places), scores) else scores


def _narrow(values: NDArray[Any]) -> _Column:
    if values.dtype.kind not in "iu" or values.dtype.itemsize == 1 or not values.size:
        return _Column(values.dtype.str, values.tobytes())
    least = int(values.min())
    rest = values - least
    kind = np.min_scalar_type(int(rest.max()))
    return _Column(kind.str, rest.astype(kind).tobytes(), least)


def _rising(values: NDArray[np.int64]) -> _Column:
    """Values that mostly rise, by little: their differences, behind the first."""
    column = _narrow(np.diff(values))
    return _Column(column.kind, column.data, column.least, int(values[0]))


def _values(column: _Column) -> NDArray[Any]:
    values = np.frombuffer(column.data, column.kind)
    if column.first is not None:
        steps = values.astype(np.int64) + column.least
        return np.cumsum(np.concatenate([[column.first], steps]))
    return values if column.least == 0 else values.astype(np.int64) + column.least


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Packed)
