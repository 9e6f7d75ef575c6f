"""Windows over labels: what is known of an entity's outcomes, as of any time.

Labels become known late and may be revised, so a row computed when a label arrives is stale by the
time an event is scored. Each entity therefore keeps its entries, and the reader evaluates them as of
its own event: entries in (as_of - span, as_of] count, those that run ahead do no harm.

A revision is an entry of count 0 with the difference of the labels; a retraction takes back both.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tailrace.core.plan import WindowView
from tailrace.errors import StateCorrupt

FORMAT = 1
MAX_ENTRIES = 4_096
"""Entries kept per entity. The oldest quarter is dropped beyond it, and counted."""
SLACK_MS = 2 * 86_400_000
"""How far labels may run ahead of the events that are scored without an entry being missed."""

_HEADER = struct.Struct("<HHI")
_ENTRY = np.dtype([("time_ms", "<i8"), ("count", "<f8"), ("sum", "<f8")])
_STORED = np.dtype([("time_ms", "<i8"), ("count", "<f8"), ("sum", "<f8"), ("id", "<i8"), ("version", "<i8")])


def evaluate(view: WindowView, states: Sequence[bytes | None], as_of_ms: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values of a label view as of the events that are scored. # hot path

    Args:
        view: The view; its aggregates are count, sum and mean of the label.
        states: n packed rings as `LabelState.rows` makes them; None: no label known yet.
        as_of_ms: int64 (n,), epoch milliseconds; entries later than this are ignored.

    Returns:
        float64 (n, d) in the order of `view.columns`; empty windows are 0, never NaN.

    Raises:
        StateCorrupt: a ring is not of a format this version reads.
    """
    spans = np.array([column.span_ms for column in view.columns], np.int64)
    kinds = np.array([("count", "sum", "mean").index(column.kind) for column in view.columns], np.int64)
    bounds = np.zeros(len(states) + 1, np.int64)
    parts = []
    for at, state in enumerate(states):
        size = 0
        if state:
            form, _, size = _HEADER.unpack_from(state)
            if form != FORMAT or len(state) != _HEADER.size + size * _ENTRY.itemsize:
                raise StateCorrupt(
                    f"a label row of view {view.name!r} has format {form} and {len(state)} bytes; this version reads "
                    f"format {FORMAT}: restart `features` so that it writes the rows again"
                )
            parts.append(memoryview(state)[_HEADER.size :])
        bounds[at + 1] = bounds[at] + size
    entries = np.frombuffer(b"".join(parts), _ENTRY)
    out: NDArray[np.float64] = _evaluate(
        np.ascontiguousarray(entries["time_ms"]),
        np.ascontiguousarray(entries["count"]),
        np.ascontiguousarray(entries["sum"]),
        bounds,
        np.asarray(as_of_ms, np.int64),
        spans,
        kinds,
    )
    return out


class LabelState:
    """The rings of all entities of one label view.

    A label is recognised by its prediction and version, which each entry carries: applying a record
    twice, or an older version after a newer one, changes nothing. O(ring) per label.
    """

    def __init__(self, view: WindowView) -> None:
        self.view = view
        self._keep_ms = view.longest_span_ms + max(view.longest_span_ms // 4, SLACK_MS)
        self._rings: dict[str, NDArray[np.void]] = {}
        self._dirty: set[str] = set()
        self._changed: set[str] = set()
        self.duplicates = 0
        self.dropped = 0

    def apply(
        self, key: str, prediction: int, version: int, known_at_ms: int, label: float | None, fresh: bool
    ) -> bool:
        """Applies what is known of one prediction.

        Args:
            key: Entity.
            prediction: Stable hash of the prediction id.
            version: Label version; the highest holds.
            known_at_ms: Stream time at which it became known.
            label: The label; None takes it back.
            fresh: False for corrections, which mean nothing when what they correct is out of every window.

        Returns:
            Whether anything changed.
        """
        ring = self._rings.get(key)
        if ring is None:
            ring = np.empty(0, _STORED)
        count, total = (0.0, 0.0) if label is None else (1.0, label)
        of_it = ring["id"] == prediction
        if of_it.any():
            mine = ring[of_it]
            if version <= int(mine["version"].max()):
                self.duplicates += 1
                return False
            count, total = count - float(mine["count"].sum()), total - float(mine["sum"].sum())
        elif label is None or not fresh:
            return False
        # Copied and not concatenated: numpy would first work out what both types have in common, at twice the cost.
        grown = np.empty(ring.size + 1, _STORED)
        grown[:-1] = ring
        grown[-1] = (known_at_ms, count, total, prediction, version)
        if ring.size and (int(ring["time_ms"][-1]), int(ring["id"][-1])) > (known_at_ms, prediction):
            # Ties ordered by prediction: sums must not depend on how partitions interleave.
            grown = grown[np.lexsort((grown["version"], grown["id"], grown["time_ms"]))]
        self._rings[key] = self._bounded(grown)
        self._dirty.add(key)
        self._changed.add(key)
        return True

    def take_dirty(self) -> list[str]:
        """Entities whose snapshot changed since the last call, sorted."""
        dirty = sorted(self._dirty)
        self._dirty.clear()
        return dirty

    def take_changed(self) -> list[str]:
        """Entities whose online row changed since the last call, sorted."""
        changed = sorted(self._changed)
        self._changed.clear()
        return changed

    def rows(self, keys: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64], list[bytes]]:
        """Online rows: values as of the newest entry, float64 (n, d); its time, int64 (n,); packed rings."""
        packed, times = [], np.zeros(len(keys), np.int64)
        for at, key in enumerate(keys):
            ring = self._rings[key]
            lean = np.empty(ring.size, _ENTRY)
            for name in ("time_ms", "count", "sum"):
                lean[name] = ring[name]
            packed.append(_HEADER.pack(FORMAT, 0, ring.size) + lean.tobytes())
            times[at] = ring["time_ms"][-1]
        return evaluate(self.view, packed, times), times, packed

    def snapshot(self, keys: Sequence[str]) -> list[bytes]:
        """Packed state per key, for the changelog."""
        return [_HEADER.pack(FORMAT, 1, self._rings[key].size) + self._rings[key].tobytes() for key in keys]

    def restore(self, states: Mapping[str, bytes]) -> None:
        """Takes over what `snapshot` gave.

        Raises:
            StateCorrupt: a snapshot is not of a format this version reads.
        """
        for key, state in states.items():
            form, stored, size = _HEADER.unpack_from(state)
            if (form, stored) != (FORMAT, 1) or len(state) != _HEADER.size + size * _STORED.itemsize:
                raise StateCorrupt(f"label state of {key!r} in view {self.view.name!r} has format {form}")
            self._rings[key] = np.frombuffer(state, _STORED, offset=_HEADER.size).copy()

    @property
    def keys(self) -> list[str]:
        """Entities with at least one known label."""
        return list(self._rings)

    def _bounded(self, ring: NDArray[np.void]) -> NDArray[np.void]:
        begin = int(np.searchsorted(ring["time_ms"], ring["time_ms"][-1] - self._keep_ms, side="right"))
        # A quarter at a time, so that trimming costs O(1) per label and not O(ring).
        begin = begin if begin > ring.size // 4 else 0
        if ring.size - begin > MAX_ENTRIES:
            excess = ring.size - begin - MAX_ENTRIES * 3 // 4
            self.dropped += excess
            begin += excess
        return ring[begin:].copy() if begin else ring


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def _evaluate(times_ms, counts, sums, bounds, as_of_ms, spans, kinds):  # type: ignore[no-untyped-def]  # compiled
    n, d = as_of_ms.size, spans.size
    out = np.zeros((n, d))
    for row in range(n):
        for column in range(d):
            count = 0.0
            total = 0.0
            for at in range(bounds[row + 1] - 1, bounds[row] - 1, -1):
                if times_ms[at] <= as_of_ms[row] - spans[column]:
                    break
                if times_ms[at] <= as_of_ms[row]:
                    count += counts[at]
                    total += sums[at]
            if kinds[column] == 0:
                out[row, column] = count
            elif kinds[column] == 1:
                out[row, column] = total
            elif count > 0:
                out[row, column] = total / count
    return out
