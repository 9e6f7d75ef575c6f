"""Exact sliding windows (t - span, t] over the events of a key.

Every key keeps its recent events in a ring, sorted by event time. A row is computed anew from the
ring, as of the event, so sums never drift and a late event enters where it belongs. An entry carries
the offset it came from: an event that is replayed changes nothing, and its row leaves out what came
after it, so it is the row of the first time.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tailrace.core import window_kernels as kernels
from tailrace.core.plan import WindowView
from tailrace.errors import StateCorrupt

FORMAT = 1
MAX_ENTRIES = 4_096
"""Entries per key. Beyond it all but the newest quarter are merged into tiles of 1/60 of the longest span: counts and
sums stay right to one tile at the far end of a window, std, min, max and distinct see tile means."""
FIRST_ROOM = 8
TILES = 60
MIN_SLACK_MS = 3_600_000
"""Entries outlive the longest span by an eighth of it, at least by this: late and replayed events need them."""

_HEADER = struct.Struct("<HHIq")


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
        self._keep_ms = span + max(span // 8, MIN_SLACK_MS)
        self._hop_ms = max(span // TILES, 1)
        self._max_entries = max_entries
        self._spans = np.array([c.span_ms for c in view.columns], np.int64)
        self._kinds = np.array([kernels.KINDS.index(c.kind) for c in view.columns], np.int64)
        self._columns = np.array([view.fields.index(c.field) if c.field else 0 for c in view.columns], np.int64)
        self._slots: dict[str, int] = {}
        self._dirty: set[str] = set()
        self._begin = np.zeros(64, np.int64)
        self._room = np.zeros(64, np.int64)
        self._used = np.zeros(64, np.int64)
        self._last = np.full(64, -1, np.int64)
        self._end = 0
        self._arena(1_024)
        self.replayed = 0
        self.merged = 0

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
        parts = []
        step = max(self._max_entries // 4, 1)
        for begin in range(0, len(keys), step):
            part = slice(begin, begin + step)
            slots = self._slots_of(keys[part])
            self._make_room(slots)
            rows, replayed = kernels.update(
                slots,
                np.ascontiguousarray(times_ms[part]),
                np.ascontiguousarray(offsets[part]),
                np.ascontiguousarray(fields[part]),
                *self._rings,
                self._begin,
                self._used,
                self._last,
                self._spans,
                self._kinds,
                self._columns,
            )
            self.replayed += replayed
            parts.append(rows)
        self._dirty.update(keys)
        return np.concatenate(parts) if parts else np.empty((0, self._spans.size))

    def take_dirty(self) -> list[str]:
        """Keys touched since the last call, sorted."""
        dirty = sorted(self._dirty)
        self._dirty.clear()
        return dirty

    def snapshot(self, keys: Sequence[str]) -> list[bytes]:
        """Packed state per key: last source offset and ring."""
        times, offsets, weights, fields = self._rings
        out = []
        for key in keys:
            slot = self._slots[key]
            size = int(self._used[slot])
            part = slice(int(self._begin[slot]), int(self._begin[slot]) + size)
            head = _HEADER.pack(FORMAT, self._f, size, int(self._last[slot]))
            rings = (times[part], offsets[part], weights[part], fields[part])
            out.append(b"".join((head, *(ring.tobytes() for ring in rings))))
        return out

    def restore(self, states: Mapping[str, bytes]) -> None:
        """Takes over what `snapshot` gave; the last state of a key wins.

        Raises:
            StateCorrupt: a snapshot is not of a format this version reads, or of another plan.
        """
        for key, state in states.items():
            form, f, size, last = _HEADER.unpack_from(state)
            if form != FORMAT or f != self._f or len(state) != _HEADER.size + size * (24 + 8 * f):
                raise StateCorrupt(
                    f"window state of view {self._view.name!r} has format {form} with {f} fields, expected format "
                    f"{FORMAT} with {self._f}: the features were changed; raise the use case's version or delete "
                    "the changelog topic and replay"
                )
            slot = int(self._slots_of([key])[0])
            self._used[slot] = 0
            self._grow(slot, size)
            part = slice(int(self._begin[slot]), int(self._begin[slot]) + size)
            at = _HEADER.size
            for ring in self._rings:
                width = 8 * (f if ring.ndim == 2 else 1)
                ring[part] = np.frombuffer(state, ring.dtype, size * width // 8, at).reshape(ring[part].shape)
                at += size * width
            self._used[slot] = size
            self._last[slot] = last

    @property
    def keys(self) -> list[str]:
        """Keys with at least one event."""
        return list(self._slots)

    @property
    def size_bytes(self) -> int:
        """Memory of the rings."""
        return sum(ring.nbytes for ring in self._rings)

    def _slots_of(self, keys: Sequence[str]) -> NDArray[np.int64]:
        slots = self._slots
        for key in keys:
            if key not in slots:
                slots[key] = len(slots)
        while len(slots) > self._begin.size:
            for name in ("_begin", "_room", "_used", "_last"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate((old, np.full(old.size, -1 if name == "_last" else 0, np.int64))))
        return np.fromiter((slots[key] for key in keys), np.int64, len(keys))

    def _make_room(self, slots: NDArray[np.int64]) -> None:
        touched, arrivals = np.unique(slots, return_counts=True)
        short = self._used[touched] + arrivals > self._room[touched]
        for slot, more in zip(touched[short].tolist(), arrivals[short].tolist(), strict=True):
            self._trim(slot)
            if self._used[slot] + more > self._max_entries:
                self.merged += kernels.merge(
                    slot, self._hop_ms, self._max_entries // 4, *self._rings, self._begin, self._used
                )
                # The tiles of the span are few: whatever is still too much lies behind it.
                excess = int(self._used[slot]) + more - self._max_entries
                self.merged += kernels.cut(slot, excess, *self._rings, self._begin, self._used)
            # Trimming alone must free a good part, or it would be tried again with every event.
            if self._used[slot] + more > self._room[slot] * 3 // 4:
                self._grow(slot, int(self._used[slot]) + more)

    def _trim(self, slot: int) -> None:
        if self._used[slot]:
            newest = int(self._rings[0][self._begin[slot] + self._used[slot] - 1])
            kernels.trim(slot, newest - self._keep_ms, *self._rings, self._begin, self._used)

    def _grow(self, slot: int, entries: int) -> None:
        room = max(int(self._room[slot]), FIRST_ROOM)
        while room * 3 // 4 < entries:
            room *= 2
        if room == self._room[slot]:
            return
        if self._end + room > self._rings[0].size:
            self._compact(room)
        begin, size = int(self._begin[slot]), int(self._used[slot])
        for ring in self._rings:
            ring[self._end : self._end + size] = ring[begin : begin + size]
        self._begin[slot], self._room[slot] = self._end, room
        self._end += room

    def _compact(self, more: int) -> None:
        """Copies all rings into a new arena with room to spare; outgrown places are left behind."""
        old, begins = self._rings, self._begin.copy()
        n = len(self._slots)
        self._arena(max(1_024, 2 * (int(self._room[:n].sum()) + more)))
        at = 0
        for slot in range(n):
            size = int(self._used[slot])
            for ring, source in zip(self._rings, old, strict=True):
                ring[at : at + size] = source[begins[slot] : begins[slot] + size]
            self._begin[slot] = at
            at += int(self._room[slot])
        self._end = at

    def _arena(self, entries: int) -> None:
        self._rings = (
            np.zeros(entries, np.int64),
            np.zeros(entries, np.int64),
            np.zeros(entries),
            np.zeros((entries, self._f)),
        )
        self._end = 0
