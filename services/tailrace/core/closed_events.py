"""Events that are closed and may only be corrected: packed into blocks, and unpacked by whoever speaks of them again.

For as long as labels may be corrected, which can be months, most of what the join keeps is events that nobody asks
for any more. A block holds some of them in the order in which they closed. An event that is spoken of again goes back
into the table, and stays there until it is forgotten; what is known of it follows from its own records either way.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.core.due_times import DueTimes
from tailrace.core.erasure import Asked
from tailrace.core.event_blocks import Packed, add, pack, unpack
from tailrace.core.join_records import JoinSpec
from tailrace.core.join_table import JoinTable, Rows
from tailrace.core.lost_outcomes import Span, within
from tailrace.core.outcome_table import OutcomeTable
from tailrace.core.prediction_texts import event_ids

BLOCK: Final = 256
"""Events of a block. Larger ones are hardly smaller per event, and take longer to unpack for a single one."""
PACKED: Final = 1 << 30
"""From here on numbers in the index are places in blocks: number of the block times `BLOCK`, and place in it."""
MOST_WAITING: Final = 1 << 17
"""Events, some 40 MB of them, that may wait to be packed for as long as there is other work to do."""
AT_ONCE: Final = 16 * BLOCK
"""Events that are packed at once, so that no batch waits long; as many as a batch brings."""


class _Closed(NamedTuple):
    """Events that wait to be packed: since when nothing is new of them, when the first can be forgotten, and which."""

    since_ms: int
    first_ms: int
    heads: Rows


class _Block:
    __slots__ = ("first_ms", "last_ms", "packed", "there")

    def __init__(self, packed: Packed, due_ms: NDArray[np.int64]) -> None:
        self.packed, self.there = packed, np.ones(len(due_ms), np.bool_)
        self.first_ms, self.last_ms = int(due_ms.min()), int(due_ms.max())


class ClosedEvents:
    """Closed events of a join's table. Not thread-safe. O(1) per event amortised, O(block) per event spoken of again.

    Args:
        table: Where they stand while they are not packed.
        spec: The join's, which says how long labels may be corrected.

    Attributes:
        told: Told first rows of events, int64 (n,), that are about to be packed, with 1, and that were unpacked, with -1.
    """

    def __init__(self, table: JoinTable, spec: JoinSpec) -> None:
        self.told: Callable[[Rows, int], None] | None = None
        self._table = table
        self._left_out: Sequence[Span] = ()
        self._until_ms = spec.window_ms + spec.lateness_ms + spec.correction_ms
        self._kept = DueTimes(spec.correction_ms)
        self._waiting: deque[_Closed] = deque()
        self._waits = 0
        self._blocks: dict[int, _Block] = {}
        self._order: list[tuple[int, int]] = []
        self._numbers: list[int] = []
        table.index.ids_of = self._event_ids

    def add(self, heads: Rows, since_ms: int) -> None:
        """Takes events, int64 (n,) first rows, that have closed by a stream time."""
        for start in range(0, len(heads), AT_ONCE):
            part = heads[start : start + AT_ONCE]
            self._waiting.append(_Closed(since_ms, int(self._due_ms(part).min()), part))
        self._waits += len(heads)

    def keep(self, heads: Rows) -> None:
        """Takes events that are not to be packed."""
        self._kept.add(self._due_ms(heads), heads)

    def take(self, until_ms: int) -> Rows:
        """Takes out events that can be forgotten by a time: int64 (n,) first rows, in no order."""
        self._wake_due(until_ms)
        return self._kept.take(until_ms)

    def take_oldest(self) -> Rows:
        """Takes out some of those that can be forgotten first: int64 (n,) first rows, none where there are no events.

        Which these are does not depend on which events are packed.
        """
        while (first_ms := self._first_ms()) is not None:
            end_ms = self._kept.first_end()
            if end_ms is not None and end_ms < first_ms:
                break
            self._wake_due(self._kept.end_of(first_ms))
        return self._kept.take_oldest()

    def wake(self, event_ids: Sequence[str]) -> None:  # hot path
        """Unpacks those of some events that are packed."""
        if not self._blocks:
            return
        guessed = self._table.index.guess(event_ids)
        places = guessed[guessed >= PACKED] - PACKED
        if not places.size:
            return
        asked = set(event_ids)
        for number, events in _by_block(places):
            names = self._names(number, events)
            mine = [event for event, name in zip(events, names, strict=True) if name in asked]
            if mine:
                self.keep(self._unpack(number, mine))

    def leave_out(self, spans: Sequence[Span]) -> None:
        """Unpacks events in disjoint ascending spans of event time, and packs none in them until told otherwise."""
        self._left_out = spans
        for number, block in list(self._blocks.items()):
            if any(
                start + self._until_ms <= block.last_ms and block.first_ms < end + self._until_ms
                for start, end in spans
            ):
                self._wake_asked(number, lambda _, times_ms: within(spans, times_ms))

    def wake_asked(self, asked: Asked) -> None:
        """Unpacks the events that are asked for."""
        for number in list(self._blocks):
            self._wake_asked(number, asked)

    def remove(self, heads: Rows) -> None:
        """Takes out events, int64 (n,) first rows, none of which is packed. O(all)."""
        self._kept.remove(heads)
        waiting = [(closed, closed.heads[~np.isin(closed.heads, heads)]) for closed in self._waiting]
        self._waiting = deque(closed._replace(heads=left) for closed, left in waiting if left.size)
        self._waits = sum(len(closed.heads) for closed in self._waiting)

    def pack(self, known_ms: int, outcomes: OutcomeTable | None, *, busy: bool = False) -> None:
        """Packs events of which nothing has become known since a time, some at once.

        Args:
            known_ms: That time; what became known later has to be found in the table.
            outcomes: Outcomes by id, None where an event has one; events that have any are not packed.
            busy: Whether there is other work to do, so that packing is put off for as long as few events wait.
        """
        if busy and self._waits < MOST_WAITING:
            return
        ready, count = [np.empty(0, np.int64)], 0
        while self._waiting and self._waiting[0].since_ms <= known_ms and count < AT_ONCE:
            ready.append(self._waiting.popleft().heads)
            count += len(ready[-1])
        heads = np.concatenate(ready)
        self._waits -= count
        if count >= BLOCK:
            rows, places = self._table.expand(heads)
            packs = np.ones(count, np.bool_)
            packs[places[self._table.known_at_ms[rows] > known_ms]] = False
            packs &= ~within(self._left_out, self._table.event_time_ms[heads])
            if outcomes is not None:
                packs &= ~outcomes.has(heads)
            self.keep(heads[~packs])
            heads = heads[packs]
            whole = len(heads) // BLOCK * BLOCK
            self._pack(heads[:whole])
            heads = heads[whole:]
        if heads.size:
            self._waiting.appendleft(_Closed(known_ms, int(self._due_ms(heads).min()), heads))
            self._waits += len(heads)

    def renumber(self, new: Rows) -> None:
        """Gives rows their new numbers: int64 (m,), by the old ones."""
        self._kept.renumber(new)
        self._waiting = deque(closed._replace(heads=new[closed.heads]) for closed in self._waiting)

    def _pack(self, heads: Rows) -> None:
        """Packs events into whole blocks."""
        if not heads.size:
            return
        table = self._table
        if self.told is not None:
            self.told(heads, 1)
        places, due_ms = [], self._due_ms(heads).reshape(-1, BLOCK)
        for packed, mine_ms in zip(pack(table, heads, BLOCK), due_ms, strict=True):
            number = self._numbers.pop() if self._numbers else len(self._blocks)
            block = self._blocks[number] = _Block(packed, mine_ms)
            heapq.heappush(self._order, (block.first_ms, number))
            places.append(PACKED + number * BLOCK + np.arange(BLOCK))
        table.index.move(table.event_ids(heads), np.concatenate(places))
        table.remove(table.expand(heads)[0])

    def _unpack(self, number: int, events: Sequence[int]) -> Rows:
        """Puts events of a block back into the table; gives their first rows."""
        block, table = self._blocks[number], self._table
        heads = add(table, block.packed, unpack(block.packed, events))
        table.index.move(table.event_ids(heads), heads)
        block.there[list(events)] = False
        if not block.there.any():
            del self._blocks[number]
            self._numbers.append(number)
        if self.told is not None:
            self.told(heads, -1)
        return heads

    def _wake_asked(self, number: int, asked: Asked) -> None:
        block = self._blocks[number]
        events = np.flatnonzero(block.there)
        content = unpack(block.packed, events.tolist())
        texts = [content.texts[at] for at in content.first.tolist()]
        mine = events[asked(texts, content.columns["event_time_ms"][content.first])]
        if mine.size:
            self.keep(self._unpack(number, mine.tolist()))

    def _wake_due(self, until_ms: int) -> None:
        """Puts all events that can be forgotten by a time among those that are kept in the table."""
        if any(closed.first_ms <= until_ms for closed in self._waiting):
            waiting, self._waiting, self._waits = self._waiting, deque(), 0
            for closed in waiting:
                self._part(closed.heads, closed.since_ms, until_ms)
        while self._order and self._order[0][0] <= until_ms:
            first_ms, number = heapq.heappop(self._order)
            block = self._blocks.get(number)
            if block is not None and block.first_ms == first_ms:
                self._part(self._unpack(number, np.flatnonzero(block.there).tolist()), -1, until_ms)

    def _part(self, heads: Rows, since_ms: int, until_ms: int) -> None:
        due = self._due_ms(heads) <= until_ms
        self.keep(heads[due])
        self.add(heads[~due], since_ms)

    def _first_ms(self) -> int | None:
        """When the first of those that are packed, or wait for it, can be forgotten, or earlier; None without any."""
        found = [closed.first_ms for closed in self._waiting]
        return min([*found, *(first_ms for first_ms, _ in self._order[:1])], default=None)

    def _due_ms(self, heads: Rows) -> NDArray[np.int64]:
        return self._table.event_time_ms[heads] + self._until_ms

    def _event_ids(self, rows: Rows) -> list[str]:
        """Ids of events in the table and in blocks."""
        packed = np.flatnonzero(rows >= PACKED)
        if not packed.size:
            return self._table.event_ids(rows)
        names = np.empty(len(rows), object)
        inside = np.flatnonzero(rows < PACKED)
        names[inside] = self._table.event_ids(rows[inside])
        for at, place in zip(packed.tolist(), (rows[packed] - PACKED).tolist(), strict=True):
            names[at] = self._names(place // BLOCK, [place % BLOCK])[0]
        return list(names)

    def _names(self, number: int, events: Sequence[int]) -> list[str]:
        found = unpack(self._blocks[number].packed, events)
        return event_ids([found.texts[at] for at in found.first.tolist()])


def _by_block(places: NDArray[np.int64]) -> list[tuple[int, list[int]]]:
    """Places as numbers of blocks, each with the events in it, all distinct and in order."""
    found: dict[int, list[int]] = {}
    for place in np.unique(places).tolist():
        found.setdefault(place // BLOCK, []).append(place % BLOCK)
    return list(found.items())
