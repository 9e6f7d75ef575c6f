"""Exact sliding windows (t - span, t] over the events of a key.

Every key keeps its recent events in a ring, sorted by event time. A row is computed anew from the
ring, as of the event, so sums never drift and a late event enters where it belongs. An entry carries
the offset it came from: an event that is replayed changes nothing, and its row leaves out what came
after it, so it is the row of the first time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tailrace.core import window_kernels as kernels
from tailrace.core.plan import WindowView
from tailrace.errors import StateCorrupt

FORMAT = 1
MAX_ENTRIES = 4_096
"""Entries per key. Beyond it all but the newest quarter are merged into tiles of 1/60 of the longest span: counts and
sums stay right to one tile at the far end of a window, std, min, max and distinct see tile means."""
FIRST_ROOM = 4
TILES = 60
MIN_SLACK_MS = 3_600_000
"""Entries outlive the longest span by an eighth of it, at least by this: late and replayed events need them."""
FIRST_ENTRIES = 1_024
SWEEPS = 8
"""Keys to forget are looked for this many times in the time after which they are, and are forgotten where they are one
in so many: work per event stays constant, and memory within a quarter of what the keys in use need."""
NEVER_MS = 2**62
MOVED_AT_ONCE = 2_000
"""Rings moved before the next are asked for, where they lie on disk."""


class Room(Protocol):
    """Where the arena of a state lies."""

    def grown(self, words: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
        """Gives an arena, int64 (rows, width), a number of rows, more than it has, its content kept."""

    def soon(self, first: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Told what is about to be read, int64 (n,) each: `rows[i]` rows of the arena from `first[i]` on."""


class InMemory:
    """`Room` in memory."""

    def grown(self, words: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
        """Leaves the arena where it lies if the system can."""
        # The one other view is made anew; rows and snapshots are copies.
        words.resize((rows, words.shape[1]), refcheck=False)
        return words

    def soon(self, first: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Memory is there."""


IN_MEMORY = InMemory()


@lru_cache(100_000)
def stable_hash(text: str) -> int:
    """Hash of a string that is the same in every process, below 2**52 and so exact as a float64."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 12


class WindowState:
    """The windows of one view for the keys of one partition. Not thread-safe.

    Args:
        view: View over the requests topic.
        max_entries: Bound on the entries of a key.
        room: Where the rings lie.
        max_behind_ms: Events older than the newest of the partition by more than this do not come: a key silent for
            this and the longest span is forgotten, which then shows nowhere but in `since_last`.
    """

    def __init__(
        self,
        view: WindowView,
        *,
        max_entries: int = MAX_ENTRIES,
        room: Room = IN_MEMORY,
        max_behind_ms: int = NEVER_MS,
    ) -> None:
        self._view = view
        self._room = room
        self._f = len(view.fields)
        span = view.longest_span_ms
        slack = max(span // 8, MIN_SLACK_MS)
        forget = min(span + max(slack, max_behind_ms), NEVER_MS)
        self._bounds = kernels.Bounds(span + slack, max(span // TILES, 1), max(max_entries // 4, 1), forget)
        self._columns = _columns(view)
        rooms = _rooms(max_entries)
        self._space = kernels.Space(rooms, np.full(rooms.size, -1, np.int64), np.array([0, 0, 0, -NEVER_MS]))
        self._swept_ms = -NEVER_MS
        self._forgotten: list[str] = []
        self._slots: dict[str, int] = {}
        self._keys: list[str] = []
        none = np.empty(0, np.int64)
        self._table = kernels.Slots(none, none, none, none, np.empty(0, np.int8))
        self._dirty = np.empty(0, np.bool_)
        self._rings = _rings(np.zeros((FIRST_ENTRIES, kernels.FIELD + self._f), np.int64))
        self.replayed = 0

    def update(
        self,
        keys: Sequence[str],
        times_ms: NDArray[np.int64],
        fields: NDArray[np.float64],
        offsets: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Adds events in order and gives the row as of each. # hot path

        Args:
            keys: n keys.
            times_ms: int64 (n,), event times, epoch milliseconds, in any order.
            fields: float64 (n, f) in the order of `view.fields`; NaN values are left out of aggregates.
            offsets: int64 (n,), source offsets, rising.

        Returns:
            float64 (n, d) in the order of `view.columns`; NaN as `usecase.features` says.
        """
        self._sweep()
        slots = self._slots_of(keys)
        self._room.soon(self._table.begin[slots], self._table.used[slots])
        out = np.empty((len(keys), self._columns.kinds.size))
        events = [np.ascontiguousarray(column) for column in (times_ms, offsets, fields)]
        row = 0
        while row < len(keys):
            row, replayed = kernels.update(
                row, slots, *events, self._rings, self._table, self._space, self._bounds, self._columns, out
            )
            self.replayed += replayed
            if row < len(keys):
                self._grow()
        self._dirty[slots] = True
        return out

    def take_dirty(self) -> list[str]:
        """Keys touched since the last call, sorted."""
        dirty = sorted(self._keys[slot] for slot in np.flatnonzero(self._dirty).tolist())
        self._dirty[:] = False
        return dirty

    def take_forgotten(self) -> list[str]:
        """Keys forgotten since the last call, sorted, but those that have come again."""
        gone, self._forgotten = sorted(key for key in self._forgotten if key not in self._slots), []
        return gone

    def snapshot(self, keys: Sequence[str]) -> list[bytes]:
        """Packed state per key: last source offset and ring."""
        slots = self._slots_of(keys)
        width = kernels.HEADER_WORDS * slots.size + int(self._table.used[slots].sum()) * (3 + self._f)
        words, ends = np.empty(width, "<i8"), np.empty(slots.size, np.int64)
        kernels.pack(slots, FORMAT, self._rings, self._table, words, ends)
        packed = words.tobytes()
        bounds = [0, *(8 * ends).tolist()]
        return [packed[begin:end] for begin, end in pairwise(bounds)]

    def restore(self, states: Mapping[str, bytes | None]) -> None:
        """Takes over what `snapshot` gave, None for a key that was forgotten; the last state of a key wins.

        Raises:
            StateCorrupt: a snapshot is not of a format this version reads, or of another plan.
        """
        packed = {key: state for key, state in states.items() if state is not None}
        known = [self._slots[key] for key, state in states.items() if state is None and key in self._slots]
        self._table.used[known], self._table.last[known] = 0, -1
        if not packed:
            return
        sizes = np.fromiter(map(len, packed.values()), np.int64, len(packed))
        if (sizes % 8).any() or (sizes < 8 * kernels.HEADER_WORDS).any():
            raise StateCorrupt(f"window state of view {self._view.name!r} is cut off")
        words, ends = np.frombuffer(b"".join(packed.values()), "<i8"), np.cumsum(sizes) // 8
        heads = words[ends - sizes // 8]
        form, f, entries = heads & 0xFFFF, heads >> 16 & 0xFFFF, heads >> 32
        fits = (form == FORMAT) & (f == self._f) & (sizes // 8 == kernels.HEADER_WORDS + entries * (3 + self._f))
        if not fits.all():
            wrong = int(np.flatnonzero(~fits)[0])
            raise StateCorrupt(
                f"window state of view {self._view.name!r} has format {form[wrong]} with {f[wrong]} fields, expected "
                f"format {FORMAT} with {self._f}: the features were changed; raise the use case's version or delete "
                "the changelog topic and replay"
            )
        slots = self._slots_of(list(packed))
        row = 0
        while row < slots.size:
            row = kernels.unpack(row, slots, words, ends, self._rings, self._table, self._space)
            if row < slots.size:
                self._grow()

    @property
    def keys(self) -> list[str]:
        """Keys with at least one event."""
        return list(self._keys)

    @property
    def merged(self) -> int:
        """Entries that were merged into tiles or dropped because a key had too many."""
        return int(self._space.state[1])

    @property
    def size_bytes(self) -> int:
        """Memory of the rings and their table, without the keys."""
        return sum(column.nbytes for column in (self._rings.words, *self._table, self._dirty))

    def _slots_of(self, keys: Sequence[str]) -> NDArray[np.int64]:
        slots = self._slots
        try:
            return np.fromiter(map(slots.__getitem__, keys), np.int64, len(keys))
        except KeyError:
            for key in keys:
                if key not in slots:
                    slots[key] = len(slots)
                    self._keys.append(key)
        if len(slots) > self._dirty.size:
            more = max(64, len(slots) + len(slots) // 4 - self._dirty.size)
            table = self._table
            self._table = kernels.Slots(
                np.concatenate((table.begin, np.zeros(more, np.int64))),
                np.concatenate((table.used, np.zeros(more, np.int64))),
                np.concatenate((table.last, np.full(more, -1, np.int64))),
                np.concatenate((table.newest, np.zeros(more, np.int64))),
                np.concatenate((table.sizes, np.full(more, -1, np.int8))),
            )
            self._dirty = np.concatenate((self._dirty, np.zeros(more, np.bool_)))
        return np.fromiter(map(slots.__getitem__, keys), np.int64, len(keys))

    def _sweep(self) -> None:
        """Forgets keys, where there are enough of them. Others take their slots: none may be in use."""
        clock, every = int(self._space.state[3]), self._bounds.forget_ms // SWEEPS
        if clock - self._swept_ms < every:
            return
        self._swept_ms = clock
        gone = kernels.forgotten(len(self._keys), self._table, self._space, self._bounds.forget_ms)
        if np.count_nonzero(gone) * SWEEPS <= gone.size:
            return
        self._forgotten += [self._keys[slot] for slot in np.flatnonzero(gone).tolist()]
        kept = np.flatnonzero(~gone)
        self._keys = [self._keys[slot] for slot in kept.tolist()]
        self._slots = {key: slot for slot, key in enumerate(self._keys)}
        table = self._table
        self._table = kernels.Slots(
            table.begin[kept], table.used[kept], table.last[kept], table.newest[kept], table.sizes[kept]
        )
        self._dirty = self._dirty[kept]
        self._compact()

    def _compact(self) -> None:
        """Closes the gaps of the arena."""
        table, state = self._table, self._space.state
        placed = np.flatnonzero(table.sizes >= 0)
        order = placed[np.argsort(table.begin[placed])]
        end = 0
        for part in np.array_split(order, len(order) // MOVED_AT_ONCE + 1):
            self._room.soon(table.begin[part], table.used[part])
            end = kernels.compact(part, end, self._rings, table, self._space)
        state[0], state[2] = end, 0
        self._space.free[:] = -1

    def _grow(self) -> None:
        """Makes space in the arena: closes gaps where that pays, else makes it larger."""
        end, free = int(self._space.state[0]), int(self._space.state[2])
        if free > end // 5:
            self._compact()
            return
        entries = len(self._rings.words)
        entries += max(entries // 8, int(self._space.rooms[-1]))
        self._rings = _rings(self._room.grown(self._rings.words, entries))


def _rings(words: NDArray[np.int64]) -> kernels.Rings:
    return kernels.Rings(words, words.view(np.float64))


def _columns(view: WindowView) -> kernels.Columns:
    spans = sorted({column.span_ms for column in view.columns})
    return kernels.Columns(
        np.array(spans, np.int64),
        np.array([kernels.KINDS.index(column.kind) for column in view.columns], np.int64),
        np.array([view.fields.index(column.field) if column.field else 0 for column in view.columns], np.int64),
        np.array([spans.index(column.span_ms) for column in view.columns], np.int64),
    )


def _rooms(max_entries: int) -> NDArray[np.int64]:
    """Sizes of places, two to the octave, so that a quarter of a place is empty on average."""
    rooms = []
    room = FIRST_ROOM
    while room < max_entries:
        rooms += [room, room * 3 // 2]
        room *= 2
    return np.array([room for room in rooms if room < max_entries] + [max_entries], np.int64)
