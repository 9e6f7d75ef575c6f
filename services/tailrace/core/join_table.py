"""Predictions that wait for their label, as columns: one row each, rows of one event chained.

A row costs some 90 bytes in arrays, plus its text and its place in the index. Rows are used again once
their event is forgotten, so that memory follows the number of open events and not their history.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.event_index import EventIndex
from tailrace.core.scoring import bin_of

Rows = NDArray[np.int64]
DECIDED, ACTIVATED, BLOCKED = 1, 2, 4
NO_OUTCOME, ASSERTED, RETRACTED, LEFT = 0, 1, 2, 3
"""What is known of an event: nothing; an outcome; one that was taken back; that no outcome can be seen any more."""
FIRST_CAPACITY = 1 << 12
LEAST_RENUMBERED = 1 << 16
"""Rows from which it is worth the while to give room back."""

_COLUMNS: dict[str, Any] = {
    "serial": np.int64,
    "event_time_ms": np.int64,
    "score": np.float64,
    "bin": np.int16,
    "cohort": np.int32,
    "flags": np.uint8,
    "head": np.int32,
    "next": np.int32,
    "aside": np.bool_,
    "version": np.int32,
    "label": np.float64,
    "status": np.int8,
    "known_at_ms": np.int64,
    "revision": np.int64,
    "outcome": np.int8,
    "value": np.float64,
    "outcome_time_ms": np.int64,
    "closed": np.bool_,
    "source": np.uint8,
    "told_by": np.uint8,
}
CHANGING: tuple[str, ...] = tuple(_COLUMNS)[9:]
"""What changes after a prediction has come. `revision` to `source` speak of the event and count in its first row."""
_CLEAR = {
    "bin": -1,
    "next": -1,
    "aside": False,
    "version": 0,
    "label": np.nan,
    "status": 0,
    "known_at_ms": -1,
    "revision": 0,
    "outcome": 0,
    "value": 0.0,
    "outcome_time_ms": 0,
    "closed": False,
    "source": 0,
    "told_by": 0,
}
"""What a row begins with. All of it: what is stored of a row must not tell whose row it was before."""


class Cohort(NamedTuple):
    """What many predictions have in common; `slices` is JSON as it came."""

    variant: str
    model_version: str
    slices: bytes


class Text(NamedTuple):
    """The text of a prediction; `key` and `entities` are JSON, `amount` is the money at stake where it is known."""

    prediction_id: str
    event_id: str
    key: msgspec.Raw
    entities: msgspec.Raw
    amount: float = 0.0


_TEXTS = msgspec.json.Decoder(list[Text])


class JoinTable:
    """Columns of open predictions, by row number. Not thread-safe.

    Attributes:
        index: The row of the first prediction of each event.
        cohorts: Cohort of each number in the column `cohort`, until `forget_cohorts`.
        aside: Which labels count in no window, because their source is not trusted; follows from the quarantines.
        source: Code of who reported what is known of an event, in its `SourceBook`; 0 for nobody.
        told_by: The same of the label as it was published last: another source that says the same changes no label.
        texts: object (capacity,), a `Text` as a JSON array for each row. An array and not a list: the garbage
            collector would walk through a list of millions again and again.
    """

    serial: NDArray[np.int64]
    event_time_ms: NDArray[np.int64]
    score: NDArray[np.float64]
    bin: NDArray[np.int16]
    cohort: NDArray[np.int32]
    flags: NDArray[np.uint8]
    head: NDArray[np.int32]
    next: NDArray[np.int32]
    aside: NDArray[np.bool_]
    version: NDArray[np.int32]
    label: NDArray[np.float64]
    status: NDArray[np.int8]
    known_at_ms: NDArray[np.int64]
    revision: NDArray[np.int64]
    outcome: NDArray[np.int8]
    value: NDArray[np.float64]
    outcome_time_ms: NDArray[np.int64]
    closed: NDArray[np.bool_]
    source: NDArray[np.uint8]
    told_by: NDArray[np.uint8]
    texts: NDArray[np.object_]

    def __init__(self) -> None:
        self.index = EventIndex(lambda rows: [text.event_id for text in self.read(rows)])
        self.cohorts: list[Cohort] = []
        self.texts = np.empty(0, object)
        self.next_serial = 0
        self._end = 0
        self._cohort_numbers: dict[Cohort, int] = {}
        self._free = array("q")
        for name, kind in _COLUMNS.items():
            setattr(self, name, np.zeros(0, kind))

    def __len__(self) -> int:
        return self._end - len(self._free)

    def cohort_numbers(self, cohorts: Iterable[tuple[str, str, bytes]]) -> list[int]:
        """Number of each cohort, new ones included."""
        known: dict[Any, Any] = self._cohort_numbers  # a tuple is equal to the Cohort of its parts
        asked = list(cohorts)
        numbers: list[Any] = list(map(known.get, asked))
        if None not in numbers:
            return numbers
        for cohort in asked:
            if cohort not in known:
                known[Cohort(*cohort)] = len(self.cohorts)
                self.cohorts.append(Cohort(*cohort))
        return list(map(known.__getitem__, asked))

    def forget_cohorts(self) -> None:
        """Forgets cohorts of which no row is left; the others are numbered anew, in the same order. O(rows)."""
        rows = self.in_use()
        used = np.bincount(self.cohort[rows], minlength=len(self.cohorts)) > 0
        if used.all():
            return
        self.cohort[rows] = (np.cumsum(used) - 1)[self.cohort[rows]]
        self.cohorts = [cohort for cohort, is_used in zip(self.cohorts, used.tolist(), strict=True) if is_used]
        self._cohort_numbers = {cohort: number for number, cohort in enumerate(self.cohorts)}

    def add(
        self,
        texts: Sequence[bytes],
        event_time_ms: Sequence[int] | NDArray[np.int64],
        score: Sequence[float] | NDArray[np.float64],
        cohort: Sequence[int] | NDArray[np.integer],
        flags: Sequence[int] | NDArray[np.integer],
    ) -> Rows:
        """Adds predictions, each as the only one of its event; the caller enters them in `index`, or chains them.

        Returns:
            int64 (n,), their rows.
        """
        rows = self._take(texts)
        self.event_time_ms[rows], self.score[rows] = event_time_ms, score
        self.cohort[rows], self.flags[rows] = cohort, flags
        self.serial[rows] = np.arange(self.next_serial, self.next_serial + len(rows))
        self.next_serial += len(rows)
        self.head[rows] = rows
        for name, value in _CLEAR.items():
            getattr(self, name)[rows] = value
        return rows

    def remove(self, rows: Rows) -> None:
        """Frees rows whose event is no longer in `index`."""
        self.texts[rows] = None
        self.serial[rows] = -1
        self._free.frombytes(rows.astype(np.int64).tobytes())

    def renumber(self) -> Rows | None:
        """Gives back the room of rows that are free, where that is most of it.

        Returns:
            int64 (n,), the new row of each old one, -1 for those that were free; None where all stays as it is.
        """
        if len(self.serial) <= LEAST_RENUMBERED or 4 * len(self) > len(self.serial):
            return None
        rows, new = self.in_use(), np.full(self._end, -1, np.int64)
        new[rows] = np.arange(len(rows))
        for name in (*_COLUMNS, "texts"):
            setattr(self, name, getattr(self, name)[rows])
        self.head = new[self.head].astype(np.int32)
        self.next = np.where(self.next >= 0, new[self.next], -1).astype(np.int32)
        self._end, self._free = len(rows), array("q")
        self.index.renumber(new)
        return new

    def chain(self, head: int) -> list[int]:
        """Rows of an event, in order of arrival."""
        rows = [head]
        while (following := int(self.next[rows[-1]])) >= 0:
            rows.append(following)
        return rows

    def expand(self, heads: Rows) -> tuple[Rows, NDArray[np.int64]]:
        """All rows of events, event by event in order of arrival.

        Returns:
            int64 (m,) rows, and int64 (m,) the position in `heads` of each.
        """
        parts, places = [heads], [np.arange(len(heads))]
        rows, place = heads, places[0]
        while True:
            following = self.next[rows]
            there = following >= 0
            if not there.any():
                break
            rows, place = following[there].astype(np.int64), place[there]
            parts.append(rows)
            places.append(place)
        if len(parts) == 1:
            return heads, places[0]
        order = np.argsort(np.concatenate(places), kind="stable")
        return np.concatenate(parts)[order], np.concatenate(places)[order]

    def read(self, rows: Rows) -> list[Text]:
        """Texts of rows."""
        return read_texts(self.texts[rows].tolist())

    def bins(self, rows: Rows) -> NDArray[np.int16]:
        """Positions of their scores on the grid, int16 (n,); worked out once for each row."""
        new = rows[self.bin[rows] < 0]
        self.bin[new] = bin_of(self.score[new])
        return np.asarray(self.bin[rows])

    def is_same_id(self, one: int, other: int) -> bool:
        """Whether two rows are of one prediction."""
        names = [text.prediction_id for text in self.read(np.array([one, other]))]
        return names[0] == names[1]

    def is_same(self, one: int, other: int) -> bool:
        """Whether two predictions say the same."""
        columns = (self.texts, self.event_time_ms, self.score, self.cohort, self.flags)
        return all(bool(column[one] == column[other]) for column in columns)

    def live(self) -> Rows:
        """All rows in use, in order of arrival: int64 (n,)."""
        used = self.in_use()
        return used[np.argsort(self.serial[used], kind="stable")]

    def in_use(self) -> Rows:
        """All rows in use, in the order of their numbers: int64 (n,)."""
        return np.flatnonzero(self.serial[: self._end] >= 0)

    def _take(self, texts: Sequence[bytes]) -> Rows:
        again = min(len(self._free), len(texts))
        reused = self._free[len(self._free) - again :]
        del self._free[len(self._free) - again :]
        first = self._end
        self._end += len(texts) - again
        if self._end > len(self.serial):
            self._grow(self._end)
        rows = np.concatenate([np.array(reused, dtype=np.int64), np.arange(first, self._end)])
        column = np.empty(len(texts), object)
        column[:] = texts
        self.texts[rows] = column
        return rows

    def _grow(self, needed: int) -> None:
        # By half: a column is moved once every so often, and never twice as large as need be.
        capacity = max(FIRST_CAPACITY, needed, len(self.serial) * 3 // 2)
        for name, kind in _COLUMNS.items():
            column = np.zeros(capacity, kind)
            column[: len(self.serial)] = getattr(self, name)
            if name != "serial":
                setattr(self, name, column)
        texts = np.empty(capacity, object)
        texts[: len(self.texts)] = self.texts
        self.texts = texts
        serial = np.full(capacity, -1, np.int64)
        serial[: len(self.serial)] = self.serial
        self.serial = serial


def read_texts(texts: Sequence[bytes]) -> list[Text]:
    """Texts from their JSON arrays."""
    return _TEXTS.decode(b"[" + b",".join(texts) + b"]")
