"""Rows of the join's table packed into blocks, a fifth of their size: for events of which little is asked any more.

Columns first lose what follows from others (times from the event's time, a score from its place on the grid), then
the bytes that no value of the block needs; what is left, texts included, is compressed as a whole. Unpacking gives the
rows bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import cramjam
import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_table import NO_OUTCOME, Cohort, JoinTable, Rows
from tailrace.core.scoring import score_of

LEVEL: Final = 1
"""Of Zstandard: 3 takes half as long again and saves nothing."""
_BYTES: Final = ("flags", "aside", "status", "outcome", "closed", "source", "told_by")
_FLOATS: Final = ("label", "value", "score")
_TIMES: Final = ("serial", "event_time_ms")
_INTEGERS: Final = ("known_at_ms", "outcome_time_ms", "revision", "version", "cohort", "score")


class _Column(msgspec.Struct, array_like=True, gc=False):
    """Integers less their least, in `width` bytes each, none where all are the same; with a `first`, differences."""

    width: int
    least: int
    data: bytes
    first: int | None = None


class _Content(msgspec.Struct, array_like=True, gc=False):
    """Columns of a block, in the order of the names above; those that are there twice are empty in one of the places."""

    events: int
    sizes: _Column
    lengths: _Column
    times: list[_Column]
    integers: list[_Column | None]
    floats: list[bytes]
    small: bytes
    texts: bytes


class Packed(NamedTuple):
    """Events packed: their rows, and the cohorts that the rows number, with those of the blocks packed beside it."""

    data: bytes
    cohorts: tuple[Cohort, ...]


class Unpacked(NamedTuple):
    """Rows of some events, event by event in order of arrival; `first` is int64 (n,), the place of the first of each."""

    first: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]
    texts: list[bytes]


def pack(table: JoinTable, heads: Rows, size: int) -> Iterator[Packed]:  # hot path
    """Packs whole events, int64 (n,) first rows, `size` to a block; they stay where they are."""
    rows, places = table.expand(heads)
    small = np.stack([getattr(table, name)[rows].view(np.uint8) for name in _BYTES])
    floats = {name: getattr(table, name)[rows] for name in _FLOATS}
    integers = {name: getattr(table, name)[rows] for name in (*_TIMES, *_INTEGERS[:-1])}
    made, told, since = (integers[name] for name in ("event_time_ms", "outcome_time_ms", "revision"))
    # Revisions that are not declared are the outcome's time.
    integers["revision"] = since - told
    integers["known_at_ms"] = integers["known_at_ms"] - made
    integers["outcome_time_ms"] = told - np.where(table.outcome[rows] != NO_OUTCOME, made, 0)
    numbers, integers["cohort"] = np.unique(integers["cohort"], return_inverse=True)
    cohorts = tuple(table.cohorts[number] for number in numbers.tolist())
    if _on_grid(table, rows):
        integers["score"] = table.bins(rows)
        del floats["score"]
    sizes, texts = np.bincount(places, minlength=len(heads)), table.texts[rows].tolist()
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    ends = np.append(0, np.cumsum(sizes))
    for start in range(0, len(heads), size):
        stop = min(start + size, len(heads))
        part = slice(int(ends[start]), int(ends[stop]))
        columns = {name: _narrow(column[part]) for name, column in integers.items() if name not in _TIMES}
        content = _Content(
            stop - start,
            _narrow(sizes[start:stop]),
            _narrow(lengths[part]),
            [_rising(integers[name][part]) for name in _TIMES],
            [columns.get(name) for name in _INTEGERS],
            [floats[name][part].tobytes() if name in floats else b"" for name in _FLOATS],
            small[:, part].tobytes(),
            b"".join(texts[part]),
        )
        data = bytes(cramjam.zstd.compress(_ENCODER.encode(content), LEVEL))
        yield Packed(data, cohorts)


def unpack(packed: Packed, events: Sequence[int]) -> Unpacked:
    """Unpacks some events of a block, by their place in it.

    The columns are those of the table but `bin`, `head` and `next`, and `cohort` numbers the cohorts of the block.
    """
    content = _DECODER.decode(bytes(cramjam.zstd.decompress(packed.data)))
    count = len(content.small) // len(_BYTES)
    chosen = list(events)
    all_sizes = _values(content.sizes, content.events)
    ends = np.cumsum(all_sizes)
    sizes = all_sizes[chosen]
    first = np.cumsum(sizes) - sizes
    which = np.arange(sizes.sum()) + np.repeat(ends[chosen] - sizes - first, sizes)
    small = np.frombuffer(content.small, np.uint8).reshape(len(_BYTES), count)
    columns: dict[str, NDArray[Any]] = {name: column[which] for name, column in zip(_BYTES, small, strict=True)}
    for name, times in zip(_TIMES, content.times, strict=True):
        columns[name] = _values(times, count)[which]
    for name, integers in zip(_INTEGERS, content.integers, strict=True):
        if integers is not None:
            columns[name] = _values(integers, count)[which]
    for name, data in zip(_FLOATS, content.floats, strict=True):
        if data:
            columns[name] = np.frombuffer(data, np.float64)[which]
        else:
            columns[name] = score_of(columns[name])
    made = columns["event_time_ms"]
    columns["known_at_ms"] = columns["known_at_ms"] + made
    columns["outcome_time_ms"] = columns["outcome_time_ms"] + np.where(columns["outcome"] != NO_OUTCOME, made, 0)
    columns["revision"] = columns["revision"] + columns["outcome_time_ms"]
    stops = np.cumsum(_values(content.lengths, count))
    spans = zip(np.append(0, stops)[which].tolist(), stops[which].tolist(), strict=True)
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
    table.head[rows] = np.repeat(heads, np.diff(unpacked.first, append=len(rows)))
    follows = np.flatnonzero(table.head[rows] != rows)
    table.next[rows[follows - 1]] = rows[follows]
    return heads


def _on_grid(table: JoinTable, rows: Rows) -> bool:
    """Whether scores lie on the grid, as all do where probabilities are predicted."""
    scores = table.score[rows]
    inside = bool(((scores > 0.0) & (scores < 1.0)).all())
    return inside and np.array_equal(score_of(table.bins(rows)), scores)


def _narrow(values: NDArray[np.integer]) -> _Column:
    least, most = int(values.min()), int(values.max())
    if least == most:
        return _Column(0, least, b"")
    width = next(width for width in (1, 2, 4, 8) if most - least < 1 << 8 * width)
    return _Column(width, least, (values - least).astype(f"u{width}").tobytes())


def _rising(values: NDArray[np.int64]) -> _Column:
    """Values that mostly rise, by little: their differences, behind the first."""
    if len(values) == 1:
        return _Column(0, 0, b"", int(values[0]))
    column = _narrow(np.diff(values))
    return _Column(column.width, column.least, column.data, int(values[0]))


def _values(column: _Column, count: int) -> NDArray[np.int64]:
    """Values of a column of so many."""
    if column.first is not None:
        steps = _values(_Column(column.width, column.least, column.data), count - 1)
        return np.cumsum(np.append(column.first, steps))
    if not column.width:
        return np.full(count, column.least, np.int64)
    return np.frombuffer(column.data, f"u{column.width}").astype(np.int64) + column.least


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Content)
