"""The tables of all tasks as one, by what the tasks say of them."""

from __future__ import annotations

from collections.abc import Mapping

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
        self._names: dict[int, list[str]] = {}

    def take(self, task: int, observed: Observed) -> tuple[Rows, Changes]:
        """Applies what was observed and counts it; gives the rows that came, int64 (n,), and the labels that changed."""
        places = self._of(task, observed)
        rows = self._add(places, observed)
        self.counts.predicted(rows)
        self._touch(task, places, observed)
        changes = self._changes(task, places, observed)
        self.counts.changed(changes)
        if observed.gone:
            self.gone.append((task, np.frombuffer(observed.gone, np.int64)))
        return rows, changes

    def take_again(self, task: int, observed: Observed) -> Changes:
        """Applies after a restart what was taken before it; gives the labels that changed.

        Nothing is counted, which is for `LabelCounts.restore`; what is gone is freed; and what speaks of rows whose
        arrival is no longer kept is left out, since they are gone, too.
        """
        places = self._of(task, observed)
        self._add(places, observed)
        self._touch(task, places, observed)
        changes = self._changes(task, places, observed)
        serial = np.frombuffer(observed.gone, np.int64)
        rows = places.find(serial)
        self.table.remove(rows[rows >= 0])
        places.remove(serial[rows >= 0])
        return changes

    def codes(self, task: int) -> list[str]:
        """Names of the sources of a task by its codes."""
        return self._names.get(task, [])

    def restore_sources(self, names: list[str], by_task: Mapping[int, list[str]]) -> None:
        """Takes back the names of sources by code, and those of each task by its own."""
        if self.sources is None:
            return
        self.sources.restore(names)
        for task, of_task in by_task.items():
            if of_task:
                self._name(task, of_task)

    def lowest(self, task: int) -> int:
        """The lowest serial number of a task's rows that are there; the next one where none is."""
        return self._rows[task].lowest() if task in self._rows else 0

    def next_serial(self, task: int) -> int:
        """The next serial number of a task's rows."""
        return self._rows[task].next_serial if task in self._rows else 0

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

    def _of(self, task: int, observed: Observed) -> _Places:
        if self.sources is not None and observed.sources:
            self._name(task, observed.sources)
        return self._rows.setdefault(task, _Places())

    def _name(self, task: int, names: list[str]) -> None:
        assert self.sources is not None
        self._names[task], self._codes[task] = names, self.sources.codes(names)

    def _changes(self, task: int, places: _Places, observed: Observed) -> Changes:
        if not observed.changed:
            return Changes.none()
        rows = places.find(np.frombuffer(observed.changed, np.int64))
        return read_changes(observed, rows, self._codes.get(task)).taken(rows >= 0)

    def _add(self, places: _Places, observed: Observed) -> Rows:
        if observed.added is None:
            return np.empty(0, np.int64)
        table = self.table
        rows = unpack(table, observed.added)
        places.add(np.frombuffer(observed.added.serial, np.int64), rows)
        heads = places.find(np.frombuffer(observed.heads, np.int64))
        chained = (heads != rows) & (heads >= 0)
        for row, head in zip(rows[chained].tolist(), heads[chained].tolist(), strict=True):
            table.next[table.chain(head)[-1]], table.head[row] = row, head
        return rows

    def _touch(self, task: int, places: _Places, observed: Observed) -> None:
        if not observed.touched:
            return
        rows = places.find(np.frombuffer(observed.touched, np.int64))
        there = rows >= 0
        for name, data in observed.columns.items():
            column = getattr(self.table, name)
            values = np.frombuffer(data, column.dtype)
            of_source = self.sources is not None and name in _SOURCES
            column[rows[there]] = (self._codes[task][values] if of_source else values)[there]


class _Places:
    """Rows of one task by its serial numbers, which rise without end; what is gone at the front is forgotten."""

    def __init__(self) -> None:
        self._first = 0
        self._end = 0
        self._rows = np.full(_FIRST_ROOM, -1, np.int64)

    @property
    def next_serial(self) -> int:
        return self._first + self._end

    def find(self, serial: NDArray[np.int64]) -> Rows:
        """Their rows, int64 (n,), -1 for those that are not there."""
        at = serial - self._first
        return np.where((at >= 0) & (at < self._end), self._rows[np.clip(at, 0, len(self._rows) - 1)], -1)

    def lowest(self) -> int:
        there = self._rows[: self._end] >= 0
        return self._first + (int(there.argmax()) if there.any() else self._end)

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
