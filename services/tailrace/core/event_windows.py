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


@lru_cache(100_000)
def stable_hash(text: str) -> int:
    """Hash of a string that is the same in every process, below 2**52 and so exact as a float64."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 12


class WindowState:
    """The windows of one view for the keys of one partition. Not thread-safe.

    Args:
        view: View over the requests topic.
        max_entries: Bound on the entries of a key.
    """

    def __init__(self, view: WindowView, *, max_entries: int = MAX_ENTRIES) -> None:
        self._view = view
        self._f = len(view.fields)
        span = view.longest_span_ms
        self._bounds = kernels.Bounds(
            span + max(span // 8, MIN_SLACK_MS), max(span // TILES, 1), max(max_entries // 4, 1)
        )
        self._columns = _columns(view)
        rooms = _rooms(max_entries)
        self._space = kernels.Space(rooms, np.full(rooms.size, -1, np.int64), np.zeros(3, np.int64))
        self._slots: dict[str, int] = {}
        self._keys: list[str] = []
        self._table = kernels.Slots(
            np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int8)
        )
        self._dirty = np.empty(0, np.bool_)
        self._rings = kernels.Rings(
            np.zeros(FIRST_ENTRIES, np.int64),
            np.zeros(FIRST_ENTRIES, np.int64),
            np.zeros(FIRST_ENTRIES),
            np.zeros((FIRST_ENTRIES, self._f)),
        )
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
        slots = self._slots_of(keys)
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

    def snapshot(self, keys: Sequence[str]) -> list[bytes]:
        """Packed state per key: last source offset and ring."""
        slots = self._slots_of(keys)
        width = kernels.HEADER_WORDS * slots.size + int(self._table.used[slots].sum()) * (3 + self._f)
        words, ends = np.empty(width, "<i8"), np.empty(slots.size, np.int64)
        kernels.pack(slots, FORMAT, self._rings, self._table, words, ends)
        packed = words.tobytes()
        bounds = [0, *(8 * ends).tolist()]
        return [packed[begin:end] for begin, end in pairwise(bounds)]

    def restore(self, states: Mapping[str, bytes]) -> None:
        """Takes over what `snapshot` gave; the last state of a key wins.

        Raises:
            StateCorrupt: a snapshot is not of a format this version reads, or of another plan.
        """
        if not states:
            return
        sizes = np.fromiter(map(len, states.values()), np.int64, len(states))
        if (sizes % 8).any() or (sizes < 8 * kernels.HEADER_WORDS).any():
            raise StateCorrupt(f"window state of view {self._view.name!r} is cut off")
        words, ends = np.frombuffer(b"".join(states.values()), "<i8"), np.cumsum(sizes) // 8
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
        slots = self._slots_of(list(states))
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
        return sum(column.nbytes for column in (*self._rings, *self._table, self._dirty))

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
                np.concatenate((table.sizes, np.full(more, -1, np.int8))),
            )
            self._dirty = np.concatenate((self._dirty, np.zeros(more, np.bool_)))
        return np.fromiter(map(slots.__getitem__, keys), np.int64, len(keys))

    def _grow(self) -> None:
        """Makes space in the arena: closes gaps where that pays, else makes it larger, where it lies if the system can."""
        end, free = int(self._space.state[0]), int(self._space.state[2])
        if free > end // 5:
            placed = np.flatnonzero(self._table.sizes >= 0)
            order = placed[np.argsort(self._table.begin[placed])]
            kernels.compact(order, self._rings, self._table, self._space)
            return
        entries = self._rings.times.size
        entries += max(entries // 8, int(self._space.rooms[-1]))
        for ring in self._rings:
            # Nobody else holds a view: rows and snapshots are copies.
            ring.resize((entries, *ring.shape[1:]), refcheck=False)


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
