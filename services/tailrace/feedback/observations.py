"""What a task says of a batch to those that look at all tasks together.

An observation is what happened in the tables of a task, as columns: predictions that came, what changed of them,
every change of a label in order, and predictions that have left; and how far the task's stream time has come.
Who applies the observations of a task in order holds a copy of its tables, so that whatever can be said of a
table can be said of all tasks' together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_table import CHANGING, JoinTable, Rows
from tailrace.core.join_watch import MINUTE_MS
from tailrace.core.joins import Changes
from tailrace.core.outcome_sources import SourceBook
from tailrace.feedback.batches import MAX_ROWS, Added, packed

FORMAT = 1
MAX_BYTES = 2_000_000
"""A record has to stay below what the broker takes, 3 MB, with names and a part that may be 1.4 MB by itself."""
CHANGED: Final = tuple(name for name in Changes._fields if name not in ("rows", "places"))


class Observed(msgspec.Struct, omit_defaults=True):
    """What happened in the table of one label. Columns are little-endian bytes, rows go by their serial number, int64.

    Attributes:
        added: Predictions that came.
        heads: The first prediction of the event of each of them.
        touched: Rows of which something changed, and `columns` what `core.join_table.CHANGING` names of them now.
        changed: Whose label changed, in order, and `changes` how: the columns of `core.labels.Changes`.
        gone: Predictions that have left the table.
        sources: Names of sources by code, where there are new ones.
    """

    added: Added | None = None
    heads: bytes = b""
    touched: bytes = b""
    columns: dict[str, bytes] = {}
    changed: bytes = b""
    changes: dict[str, bytes] = {}
    gone: bytes = b""
    sources: list[str] = []


class Vectors(msgspec.Struct):
    """A sample of a champion's inputs, float32 (n, d) row by row, and its scores, float64 (n,)."""

    version: str
    matrix: bytes
    scores: bytes


class Observation(msgspec.Struct, omit_defaults=True):
    """What a task did in a batch, or in a part of one: only the last part states the watermark that was reached.

    Attributes:
        watermark_ms: Stream time of the task, epoch milliseconds; -1 before it begins.
        labels: In the order of the declaration.
        vectors: Sampled inputs.
        number: Place among all that the task has said, from 0.
        idle: Nothing comes for the task, so that others need not wait for it.
    """

    task: int
    watermark_ms: int
    labels: list[Observed]
    vectors: list[Vectors] = []
    number: int = 0
    idle: bool = False
    format: int = FORMAT


class Header(msgspec.Struct):
    """What an observation says of itself."""

    task: int
    watermark_ms: int
    number: int = 0
    idle: bool = False
    format: int = FORMAT


class Recorder:
    """Makes what is observed of one label.

    Args:
        book: Who reports, by code; None where outcomes name no source.
    """

    def __init__(self, book: SourceBook | None) -> None:
        self._book = book
        self._sources = 0

    def record(self, table: JoinTable, added: Rows, touched: Rows, changes: Changes, gone: Rows) -> Iterator[Observed]:
        """What a batch did, in parts of limited size, before the rows that are gone are freed."""
        # Numbers of rows depend on when the table was restored, serial numbers do not.
        touched, gone = (rows[np.argsort(table.serial[rows])] for rows in (touched, gone))
        if self._book is not None and len(self._book.names) > self._sources:
            self._sources = len(self._book.names)
            yield Observed(sources=list(self._book.names))
        for part in packed(table, added):
            serial = np.frombuffer(part.serial, np.int64)
            rows = added[np.searchsorted(table.serial[added], serial)]
            yield Observed(added=part, heads=table.serial[table.head[rows]].tobytes())
        for rows in _parts(touched):
            columns = {name: getattr(table, name)[rows].tobytes() for name in CHANGING}
            yield Observed(touched=table.serial[rows].tobytes(), columns=columns)
        for places in _parts(np.arange(len(changes.rows))):
            some = changes.taken(places)
            columns = {name: getattr(some, name).tobytes() for name in CHANGED}
            yield Observed(changed=table.serial[some.rows].tobytes(), changes=columns)
        for rows in _parts(gone):
            yield Observed(gone=table.serial[rows].tobytes())


def observations(
    task: int, before_ms: int, watermark_ms: int, labels: Sequence[Sequence[Observed]], vectors: Sequence[Vectors]
) -> Iterator[Observation]:
    """Records of a batch, as few as their size allows; none where nothing happened and no minute has passed.

    Args:
        task: Whose batch.
        before_ms: Watermark of the task before it.
        watermark_ms: And after it.
        labels: Parts of each label, in order.
        vectors: Sampled inputs.
    """
    if watermark_ms // MINUTE_MS <= before_ms // MINUTE_MS and not vectors and not any(labels):
        return
    here = Observation(task, before_ms, [Observed() for _ in labels])
    size = 0
    parts: list[tuple[int, Observed | Vectors]] = [(at, part) for at, label in enumerate(labels) for part in label]
    for at, part in [*parts, *((0, one) for one in vectors)]:
        added = _size(part)
        if size and (size + added > MAX_BYTES or (isinstance(part, Observed) and _both(here.labels[at], part))):
            yield here
            here, size = Observation(task, before_ms, [Observed() for _ in labels]), 0
        size += added
        if isinstance(part, Vectors):
            here.vectors = [*here.vectors, part]
        else:
            for name in _said(part):
                setattr(here.labels[at], name, getattr(part, name))
    here.watermark_ms = watermark_ms
    yield here


def key_of(task: int, number: int) -> bytes:
    """Key under which an observation is kept until it is deleted."""
    return b"%d:%020d" % (task, number)


def read_changes(observed: Observed, rows: Rows, codes: NDArray[np.uint8] | None) -> Changes:
    """Changes of labels as they were observed.

    Args:
        observed: What was observed.
        rows: int64 (n,), where those stand whose labels changed.
        codes: uint8 (s,), codes of sources by those of the task; None where outcomes name no source.
    """
    none: Any = Changes.none()
    columns = {name: np.frombuffer(observed.changes[name], getattr(none, name).dtype) for name in CHANGED}
    if codes is not None:
        columns["source"] = codes[columns["source"]]
    return Changes(rows=rows, places=np.arange(len(rows)), **columns)


def _said(part: Observed) -> list[str]:
    return [name for name in Observed.__struct_fields__ if getattr(part, name)]


def _both(one: Observed, other: Observed) -> bool:
    """Whether both say something of one kind, which a record has room for once."""
    return not set(_said(one)).isdisjoint(_said(other))


def _size(part: Observed | Vectors) -> int:
    """Bytes of a part, but for names and numbers that are few."""
    if isinstance(part, Vectors):
        return len(part.matrix) + len(part.scores)
    added = part.added
    columns = [part.heads, part.touched, part.changed, part.gone, *part.columns.values(), *part.changes.values()]
    if added is not None:
        columns += [added.serial, added.cohort, added.lengths, added.texts, *added.columns.values()]
    return sum(map(len, columns))


def _parts(rows: Rows) -> Iterator[Rows]:
    for start in range(0, len(rows), MAX_ROWS):
        yield rows[start : start + MAX_ROWS]
