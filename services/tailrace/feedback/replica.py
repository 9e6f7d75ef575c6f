"""The tables of all tasks as one, by what the tasks say of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_table import JoinTable, Rows
from tailrace.core.joins import Changes, JoinSpec
from tailrace.core.outcome_sources import SourceBook
from tailrace.core.window_spec import WindowSpec
from tailrace.feedback.batches import unpack
from tailrace.feedback.label_counts import LabelCounts
from tailrace.feedback.observations import Observed, read_changes

_FIRST_ROOM = 1 << 12
_SOURCES = ("source", "told_by")


class Replica:
    """Predictions of one label, of all tasks, and the windows in which they count.

    Args:
        spec: How outcomes are joined.
        kept_ms: How long windows are kept.
        counted: What the windows hold.

    Attributes:
        counts: Of all that is in the table and of what has left it.
        gone: Rows that have left their task's table, and are still here until they are freed.
    """

    def __init__(self, spec: JoinSpec, kept_ms: int, counted: WindowSpec) -> None:
        self.sources = SourceBook(spec.trust) if spec.trust is not None else None
        self.table = JoinTable()
        self.counts = LabelCounts(self.table, self.sources, kept_ms, counted)
        self.gone: list[tuple[int, NDArray[np.int64]]] = []
        self._rows: dict[int, _Places] = {}
        self._codes: dict[int, NDArray[np.uint8]] = {}

    def take(self, task: int, observed: Observed) -> tuple[Rows, Changes]:
        """Applies what was observed and counts it; gives the rows that came, int64 (n,), and the labels that changed."""
        places = self._rows.setdefault(task, _Places())
        if self.sources is not None and observed.sources:
            self._codes[task] = self.sources.codes(observed.sources)
        rows = self._add(places, observed)
        self._touch(task, places, observed)
        changes = Changes.none()
        if observed.changed:
            whose = places.find(np.frombuffer(observed.changed, np.int64))
            changes = read_changes(observed, whose, self._codes.get(task))
            self.counts.changed(changes)
        if observed.gone:
            self.gone.append((task, np.frombuffer(observed.gone, np.int64)))
        return rows, changes

    def forget(self, now_ms: int) -> None:
        """Forgets windows that nobody looks back at, and what is left of predictions that are no more."""
        self.table.forget_cohorts()
        self.counts.forget(now_ms)

    def free(self) -> None:
        """Frees what has left its task's table; it counts among what is settled from now on."""
        for task, serial in self.gone:
            rows = self._rows[task].find(serial)
            self.counts.leaving(rows)
            self.table.remove(rows)
            self._rows[task].remove(serial)
        self.gone = []

    def _add(self, places: _Places, observed: Observed) -> Rows:
        if observed.added is None:
            return np.empty(0, np.int64)
        table = self.table
        rows = unpack(table, observed.added)
        places.add(np.frombuffer(observed.added.serial, np.int64), rows)
        heads = places.find(np.frombuffer(observed.heads, np.int64))
        chained = heads != rows
        for row, head in zip(rows[chained].tolist(), heads[chained].tolist(), strict=True):
            table.next[table.chain(head)[-1]], table.head[row] = row, head
        self.counts.predicted(rows)
        return rows

    def _touch(self, task: int, places: _Places, observed: Observed) -> None:
        if not observed.touched:
            return
        rows = places.find(np.frombuffer(observed.touched, np.int64))
        for name, data in observed.columns.items():
            column = getattr(self.table, name)
            values = np.frombuffer(data, column.dtype)
            column[rows] = self._codes[task][values] if self.sources is not None and name in _SOURCES else values


class _Places:
    """Rows of one task by its serial numbers, which rise without end; what is gone at the front is forgotten."""

    def __init__(self) -> None:
        self._first = 0
        self._end = 0
        self._rows = np.full(_FIRST_ROOM, -1, np.int64)

    def find(self, serial: NDArray[np.int64]) -> Rows:
        return np.asarray(self._rows[serial - self._first])

    def add(self, serial: NDArray[np.int64], rows: Rows) -> None:
        if self._end == 0:
            self._first = int(serial[0])
        end = int(serial[-1]) + 1 - self._first
        if end > len(self._rows):
            self._move(end)
            end = int(serial[-1]) + 1 - self._first
        self._rows[serial - self._first] = rows
        self._end = end

    def remove(self, serial: NDArray[np.int64]) -> None:
        self._rows[serial - self._first] = -1

    def _move(self, end: int) -> None:
        """Makes room, from the first row that is still there."""
        used = np.flatnonzero(self._rows[: self._end] >= 0)
        gone = int(used[0]) if used.size else self._end
        room = np.full(max(2 * (end - gone), _FIRST_ROOM), -1, np.int64)
        room[: self._end - gone] = self._rows[gone : self._end]
        self._rows, self._first = room, self._first + gone
