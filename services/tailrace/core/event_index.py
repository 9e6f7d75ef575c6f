"""Where events stand in the join's table: their ids as hashes in an open-addressing table, 25 bytes each.

A dict of strings takes some 80 bytes for an entry of a million. Ids are not kept twice: where a hash is found, the id
is compared with the one in the row's own text. Ids whose hash another one has already are kept beside it in a dict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

_FREE, _LEFT = -1, -2
"""A place that was never used, where a search ends; and one whose entry is gone, where it goes on."""
_FIRST_SIZE = 1 << 12


class EventIndex:
    """Rows by event id. O(1) amortised. Not thread-safe.

    A row is any number below 2**31: where it is no row of the table, whoever entered it sets `ids_of`.

    Args:
        ids_of: Gives the event ids of rows, int64 (n,).
        hashed: Hash of an id, 64 bits.
    """

    def __init__(self, ids_of: Callable[[NDArray[np.int64]], list[str]], hashed: Callable[[str], int] = hash) -> None:
        self.ids_of = ids_of
        self._hashed = hashed
        self._hashes = np.zeros(_FIRST_SIZE, np.int64)
        self._rows = np.full(_FIRST_SIZE, _FREE, np.int32)
        self._count = 0
        self._used = 0
        self._others: dict[str, int] = {}

    def __len__(self) -> int:
        return self._count + len(self._others)

    def guess(self, event_ids: Sequence[str]) -> NDArray[np.int64]:  # hot path
        """Where events stand if they are there, by their hashes alone: int64 (n,); -1 for those that are not."""
        rows = np.empty(len(event_ids), np.int64)
        _find(self._hashes, self._rows, self._hash(event_ids), rows)
        for at, name in enumerate(event_ids) if self._others else ():
            rows[at] = self._others.get(name, rows[at])
        return rows

    def find(self, event_ids: Sequence[str]) -> NDArray[np.int64]:  # hot path
        """Rows of events, int64 (n,); -1 for those that are not there."""
        rows = np.empty(len(event_ids), np.int64)
        _find(self._hashes, self._rows, self._hash(event_ids), rows)
        found = np.flatnonzero(rows >= 0)
        for at, name in zip(found.tolist(), self.ids_of(rows[found]) if found.size else (), strict=True):
            if event_ids[at] != name:
                rows[at] = -1
        for at in np.flatnonzero(rows < 0).tolist() if self._others else ():
            rows[at] = self._others.get(event_ids[at], -1)
        return rows

    def enter(self, event_ids: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.int64]:  # hot path
        """Enters events that are not there yet, with their rows, int64 (n,) and readable by `ids_of`.

        Returns:
            int64 (n,), the rows of all of them: those given, or those that an event had before.
        """
        heads = np.array([self._others.get(name, -1) for name in event_ids]) if self._others else np.full(len(rows), -1)
        new = np.flatnonzero(heads < 0)
        if self._used + len(new) > 2 * len(self._rows) // 3:
            self._rebuild(self._count + len(new))
        found = np.empty(len(new), np.int64)
        added, used = _enter(
            self._hashes, self._rows, self._hash([event_ids[at] for at in new.tolist()]), rows[new], found
        )
        self._count, self._used = self._count + added, self._used + used
        heads[new] = found
        again = new[found != rows[new]]
        for at, name in zip(again.tolist(), self.ids_of(heads[again]) if again.size else (), strict=True):
            if event_ids[at] != name:
                heads[at] = self._others.setdefault(event_ids[at], int(rows[at]))
        return heads

    def move(self, event_ids: Sequence[str], rows: NDArray[np.int64]) -> None:
        """Gives events, all of which are there, other rows: int64 (n,)."""
        mine = np.ones(len(rows), np.bool_)
        for at, name in enumerate(event_ids) if self._others else ():
            if name in self._others:
                self._others[name], mine[at] = int(rows[at]), False
        _set(self._hashes, self._rows, self._hash([name for at, name in enumerate(event_ids) if mine[at]]), rows[mine])

    def renumber(self, new: NDArray[np.int64]) -> None:
        """Gives all rows below len(new), int64 (n,), their new numbers."""
        mine = (self._rows >= 0) & (self._rows < len(new))
        self._rows[mine] = new[self._rows[mine]]
        self._others = {name: int(new[row]) if row < len(new) else row for name, row in self._others.items()}

    def remove(self, event_ids: Sequence[str]) -> None:
        """Forgets events, all of which are there."""
        mine = [name for name in event_ids if self._others.pop(name, None) is None] if self._others else event_ids
        _set(self._hashes, self._rows, self._hash(mine), np.full(len(mine), _LEFT))
        self._count -= len(mine)

    def _hash(self, event_ids: Sequence[str]) -> NDArray[np.int64]:
        return np.fromiter(map(self._hashed, event_ids), np.int64, len(event_ids))

    def _rebuild(self, needed: int) -> None:
        """Makes room, and places whose entries are gone free again."""
        size = _FIRST_SIZE
        while size < 2 * needed:
            size *= 2
        there = self._rows >= 0
        hashes, rows = self._hashes[there], self._rows[there]
        self._hashes, self._rows = np.zeros(size, np.int64), np.full(size, _FREE, np.int32)
        _enter(self._hashes, self._rows, hashes, rows.astype(np.int64), np.empty(len(rows), np.int64))
        self._used = self._count


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def _find(hashes, rows, asked, found):  # type: ignore[no-untyped-def]  # compiled  # hot path
    last = rows.size - 1
    for at in range(asked.size):
        place = asked[at] & last
        while rows[place] != _FREE and (rows[place] == _LEFT or hashes[place] != asked[at]):
            place = (place + 1) & last
        found[at] = rows[place]


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _enter(hashes, rows, asked, new, found):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Gives how many entries were added, and how many of them in places that were never used."""
    last, added, used = rows.size - 1, 0, 0
    for at in range(asked.size):
        place, left = asked[at] & last, -1
        while rows[place] != _FREE and (rows[place] == _LEFT or hashes[place] != asked[at]):
            if rows[place] == _LEFT and left < 0:
                left = place
            place = (place + 1) & last
        found[at] = rows[place]
        if rows[place] == _FREE:
            if left >= 0:
                place = left
            else:
                used += 1
            hashes[place], rows[place], found[at] = asked[at], new[at], new[at]
            added += 1
    return added, used


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _set(hashes, rows, asked, new):  # type: ignore[no-untyped-def]  # compiled  # hot path
    last = rows.size - 1
    for at in range(asked.size):
        place = asked[at] & last
        while rows[place] == _LEFT or hashes[place] != asked[at]:
            place = (place + 1) & last
        rows[place] = new[at]
