"""Outcomes of events that may have several, as columns: what holds of each outcome id, and what they come to together.

The rules of reduction commute: they look at the set of outcomes that hold, and never at the order of their arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_table import ASSERTED, FIRST_CAPACITY, LEFT, RETRACTED, Rows
from tailrace.core.outcome_sources import SourceBook
from tailrace.core.reductions import Reduction

_COLUMNS: dict[str, Any] = {
    "head": np.int64,
    "next": np.int64,
    "revision": np.int64,
    "kind": np.int8,
    "value": np.float64,
    "time_ms": np.int64,
    "source": np.uint8,
}
STORED = ("revision", "kind", "value", "time_ms", "source")
"""What an outcome says, in the order in which conflicts are decided, and who says so."""


class Said(NamedTuple):
    """What outcomes say, as columns of n: `revision` and `time_ms` int64, `kind` int8, `value` float64, `source` uint8."""

    revision: NDArray[np.int64]
    kind: NDArray[np.int8]
    value: NDArray[np.float64]
    time_ms: NDArray[np.int64]
    source: NDArray[np.uint8]

    def taken(self, which: NDArray[Any]) -> Said:
        """Some of them, by a mask or by position."""
        return Said._make(column[which] for column in self)

    def columns(self, book: SourceBook | None) -> tuple[NDArray[Any], ...]:
        """What decides between two that speak of the same, in its order: trust before all else, where it is told."""
        said = (self.revision, self.kind, self.value, self.time_ms)
        return said if book is None else (book.tiers[self.source], *said, book.order[self.source])


class OutcomeTable:
    """Outcomes by event and outcome id; those of one event are chained. Not thread-safe. O(1) per record.

    An event goes by its first row in the join's table, which must not be given to another event before `remove`.

    Attributes:
        touched: Rows that changed, since the caller last cleared it; some may be free by now.
    """

    head: NDArray[np.int64]
    next: NDArray[np.int64]
    revision: NDArray[np.int64]
    kind: NDArray[np.int8]
    value: NDArray[np.float64]
    time_ms: NDArray[np.int64]
    source: NDArray[np.uint8]

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.touched: list[Rows] = []
        self._rows: dict[tuple[int, str], int] = {}
        self._first: dict[int, int] = {}
        self._free: list[int] = []
        for name, kind in _COLUMNS.items():
            setattr(self, name, np.zeros(0, kind))

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, heads: Rows, ids: Sequence[str]) -> Rows:
        """Rows of outcomes of events, int64 (n,) each; -1 where an event has none of that id."""
        get = self._rows.get
        return np.array([get(key, -1) for key in zip(heads.tolist(), ids, strict=True)], dtype=np.int64)

    def said(self, rows: Rows) -> Said:
        """What outcomes say."""
        return Said._make(getattr(self, name)[rows] for name in STORED)

    def put(self, heads: Rows, ids: Sequence[str], said: Said) -> None:
        """Enters outcomes, int64 (n,) heads, in the place of those of the same event and id."""
        rows = self.find(heads, ids)
        for at in np.flatnonzero(rows < 0).tolist():
            rows[at] = self._add(int(heads[at]), ids[at])
        for name, column in zip(STORED, said, strict=True):
            getattr(self, name)[rows] = column
        self.touched.append(rows)

    def remove(self, heads: Rows) -> None:
        """Forgets all outcomes of events."""
        for head in heads.tolist():
            row = self._first.pop(head, -1)
            while row >= 0:
                del self._rows[head, self.ids[row]]
                self.ids[row], self.head[row] = "", -1
                self._free.append(row)
                row = int(self.next[row])

    def has(self, heads: Rows) -> NDArray[np.bool_]:
        """Which events have outcomes: bool (n,)."""
        return np.fromiter(map(self._first.__contains__, heads.tolist()), np.bool_, len(heads))

    def renumber(self, new: Rows) -> None:
        """Gives the events' first rows their new numbers: int64 (m,), by the old ones."""
        used = self.head >= 0
        self.head[used] = new[self.head[used]]
        self._rows = {(int(new[head]), name): row for (head, name), row in self._rows.items()}
        self._first = {int(new[head]): row for head, row in self._first.items()}

    def take_touched(self) -> Rows:
        """Rows in use that changed since the last call: int64 (n,), distinct."""
        rows = np.unique(np.concatenate([np.empty(0, np.int64), *self.touched]))
        self.touched = []
        return np.asarray(rows[self.head[rows] >= 0])

    def latest_ms(self, heads: Rows) -> NDArray[np.int64]:
        """Time of the newest outcome of each event, taken back or not: int64 (n,); -2**63 where there is none."""
        latest = np.full(len(heads), np.iinfo(np.int64).min)
        rows, places = self._chains(heads)
        np.maximum.at(latest, places, self.time_ms[rows])
        return latest

    def reduced(self, heads: Rows, rule: Reduction) -> Said:
        """What the outcomes of events, int64 (n,) heads with at least one outcome each, come to together.

        An event of which any outcome holds is judged by those that hold: `any` is 1 where one is positive, else 0;
        `max` the greatest value; `sum` their sum; `last` the value of the newest, of the greatest id where times are
        equal. Without one, it has left observation if an outcome says so, and else nothing is known of it.
        `time_ms` is that of the outcome which decides: the earliest of the greatest values, else the newest.
        `revision` is 0.
        """
        rows, places = self._chains(heads)
        kind = np.full(len(heads), RETRACTED, np.int8)
        kind[places[self.kind[rows] == LEFT]] = LEFT
        kind[places[self.kind[rows] == ASSERTED]] = ASSERTED
        counts = self.kind[rows] == kind[places]
        rows, places = rows[counts], places[counts]
        deciding = rows[self._deciding(rows, places, rule)]
        value = self.value[deciding]
        if rule == "any":
            value = (value > 0.0).astype(np.float64)
        elif rule == "sum":
            # Sorted, so that the rounding of the sum does not depend on the order of arrival either.
            order = np.lexsort((self.value[rows], places))
            value = np.add.reduceat(self.value[rows[order]], _starts(places[order]))
        value = np.where(kind == ASSERTED, value, 0.0)
        return Said(np.zeros(len(heads), np.int64), kind, value, self.time_ms[deciding], self.source[deciding])

    def _deciding(self, rows: Rows, places: NDArray[np.int64], rule: Reduction) -> NDArray[np.int64]:
        """Position of the row that decides in each event; `places` int64 (n,) numbers the events of the rows."""
        times = self.time_ms[rows]
        if rule in ("any", "max"):
            worth = self.value[rows] > 0.0 if rule == "any" else self.value[rows]
            order = np.lexsort((self.source[rows], -times, worth, places))
        else:
            order = np.lexsort((times, places))
            same = (np.diff(times[order]) == 0) & (np.diff(places[order]) == 0)
            if same.any():
                keys = [(places[at], times[at], self.ids[rows[at]]) for at in range(len(rows))]
                order = np.array(sorted(range(len(rows)), key=keys.__getitem__))
        last: NDArray[np.int64] = np.append(_starts(places[order])[1:], len(order)) - 1
        return np.asarray(order[last])

    def _chains(self, heads: Rows) -> tuple[Rows, NDArray[np.int64]]:
        """Outcomes of events: int64 (m,) rows, and int64 (m,) the position in `heads` of each."""
        first = np.array([self._first.get(head, -1) for head in heads.tolist()], dtype=np.int64)
        place = np.flatnonzero(first >= 0)
        row = first[place]
        rows, places = [row], [place]
        while row.size:
            following = self.next[row]
            place, row = place[following >= 0], following[following >= 0]
            rows.append(row)
            places.append(place)
        return np.concatenate(rows), np.concatenate(places)

    def _add(self, head: int, outcome_id: str) -> int:
        if self._free:
            row = self._free.pop()
            self.ids[row] = outcome_id
        else:
            row = len(self.ids)
            self.ids.append(outcome_id)
            if row >= len(self.head):
                self._grow()
        self._rows[head, outcome_id] = row
        self.head[row], self.next[row] = head, self._first.get(head, -1)
        self._first[head] = row
        return row

    def _grow(self) -> None:
        capacity = max(FIRST_CAPACITY, len(self.head) * 3 // 2)
        for name, kind in _COLUMNS.items():
            column = np.zeros(capacity, kind)
            column[: len(self.head)] = getattr(self, name)
            if name != "head":
                setattr(self, name, column)
        head = np.full(capacity, -1, np.int64)
        head[: len(self.head)] = self.head
        self.head = head


def _starts(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each event begins among sorted places: int64 (n,)."""
    return np.flatnonzero(np.diff(places, prepend=-1))
