"""Where the entries of the event windows lie, and the compiled loops that move them.

Rings lie in one arena per state: `times`, `offsets` (int64), `weights` (float64) and `fields`
(float64, one row per entry). Slot s owns `[begin[s], begin[s] + rooms[sizes[s]])`, of which the first
`used[s]` entries are filled, sorted by time, ties by offset. A place that a ring has outgrown is
chained to the next free one of its size through its first time, so memory is used again and nothing
is ever copied to close gaps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

HEADER_WORDS = 2
"""Of a packed ring: format, fields and entries in one word, the last source offset in the other."""


class Rings(NamedTuple):
    """Arena: int64 or float64 (entries,), `fields` (entries, f)."""

    times: NDArray[np.int64]
    offsets: NDArray[np.int64]
    weights: NDArray[np.float64]
    fields: NDArray[np.float64]


class Slots(NamedTuple):
    """By slot: where its ring begins, how many entries it holds, its newest source offset, index into `rooms`."""

    begin: NDArray[np.int64]
    used: NDArray[np.int64]
    last: NDArray[np.int64]
    sizes: NDArray[np.int8]


class Space(NamedTuple):
    """Entries of a place by size; first free place by size, -1 for none; `[end of the arena in use, entries merged]`."""

    rooms: NDArray[np.int64]
    free: NDArray[np.int64]
    state: NDArray[np.int64]


class Bounds(NamedTuple):
    """How long entries are kept, how wide a tile is, how many of the newest entries never go into tiles."""

    keep_ms: int
    hop_ms: int
    newest: int


def compiled(function: Any) -> Any:
    """Compiles without the interpreter's lock, so that other threads work meanwhile; kept on disk."""
    return njit(cache=True, nogil=True)(function)


@compiled
def copy(rings, source, target):  # type: ignore[no-untyped-def]  # compiled
    """Copies an entry."""
    rings.times[target] = rings.times[source]
    rings.offsets[target] = rings.offsets[source]
    rings.weights[target] = rings.weights[source]
    for k in range(rings.fields.shape[1]):
        rings.fields[target, k] = rings.fields[source, k]


@compiled
def make_room(slot, rings, table, space, bounds):  # type: ignore[no-untyped-def]  # compiled
    """Makes room for one more entry; False when the arena must grow first."""
    size = table.sizes[slot]
    if size >= 0 and table.used[slot] < space.rooms[size]:
        return True
    if size >= 0:
        trim(slot, bounds.keep_ms, rings, table)
        # Trimming alone must free a good part, or it would be tried again with every event.
        if table.used[slot] < space.rooms[size] * 3 // 4:
            return True
    if size + 1 < space.rooms.size:
        return place(slot, size + 1, rings, table, space)
    space.state[1] += merge(slot, bounds.hop_ms, bounds.newest, rings, table)
    # The tiles of the span are few: whatever is still too much lies behind it.
    excess = table.used[slot] - space.rooms[size] * 3 // 4
    space.state[1] += cut(slot, excess, rings, table)
    return True


@compiled
def place(slot, size, rings, table, space):  # type: ignore[no-untyped-def]  # compiled
    """Moves a ring to a place of another size; False when the arena must grow first."""
    at = space.free[size]
    if at >= 0:
        space.free[size] = rings.times[at]
    else:
        at = space.state[0]
        if at + space.rooms[size] > rings.times.size:
            return False
        space.state[0] += space.rooms[size]
    first, former = table.begin[slot], table.sizes[slot]
    for entry in range(table.used[slot]):
        copy(rings, first + entry, at + entry)
    if former >= 0:
        rings.times[first] = space.free[former]
        space.free[former] = first
    table.begin[slot] = at
    table.sizes[slot] = size
    return True


@compiled
def cut(slot, moved, rings, table):  # type: ignore[no-untyped-def]  # compiled
    """Drops the oldest `moved` entries of a slot; returns how many that were."""
    if moved <= 0:
        return 0
    first = table.begin[slot]
    for at in range(first + moved, first + table.used[slot]):
        copy(rings, at, at - moved)
    table.used[slot] -= moved
    return moved


@compiled
def trim(slot, keep_ms, rings, table):  # type: ignore[no-untyped-def]  # compiled
    """Drops the entries of a slot that no window can reach, except the newest of them: `since_last` asks for it."""
    first = table.begin[slot]
    end = first + table.used[slot]
    horizon_ms = rings.times[end - 1] - keep_ms
    keep = first
    while keep < end and rings.times[keep] <= horizon_ms:
        keep += 1
    cut(slot, keep - 1 - first, rings, table)


@compiled
def merge(slot, hop_ms, newest, rings, table):  # type: ignore[no-untyped-def]  # compiled
    """Merges all but the `newest` entries of a slot into tiles of `hop_ms`: weights add, fields become weighted means.

    Returns:
        How many entries went into tiles.
    """
    first = table.begin[slot]
    end = first + table.used[slot]
    old = max(end - newest, first)
    tile = first
    for at in range(first + 1, end):
        if at < old and rings.times[at] // hop_ms == rings.times[tile] // hop_ms:
            weight = rings.weights[tile] + rings.weights[at]
            for k in range(rings.fields.shape[1]):
                change = rings.fields[at, k] - rings.fields[tile, k]
                rings.fields[tile, k] += change * (rings.weights[at] / weight)
            rings.weights[tile] = weight
            rings.times[tile] = rings.times[at]
            rings.offsets[tile] = max(rings.offsets[tile], rings.offsets[at])
        else:
            tile += 1
            copy(rings, at, tile)
    table.used[slot] = tile + 1 - first
    return end - tile - 1


@compiled
def pack(slots, form, rings, table, words, ends):  # type: ignore[no-untyped-def]  # compiled
    """Writes the packed rings of slots one behind the other into `words`, and where each ends, in words, into `ends`."""
    width = rings.fields.shape[1]
    at = 0
    floats = words.view(np.float64)
    for row in range(slots.size):
        first, size = table.begin[slots[row]], table.used[slots[row]]
        words[at] = form | width << 16 | size << 32
        words[at + 1] = table.last[slots[row]]
        at += HEADER_WORDS
        for entry in range(size):
            words[at + entry] = rings.times[first + entry]
            words[at + size + entry] = rings.offsets[first + entry]
            floats[at + 2 * size + entry] = rings.weights[first + entry]
            for k in range(width):
                floats[at + 3 * size + entry * width + k] = rings.fields[first + entry, k]
        at += size * (3 + width)
        ends[row] = at


@compiled
def unpack(row, slots, words, ends, rings, table, space):  # type: ignore[no-untyped-def]  # compiled
    """Puts packed rings, from `row` on, in place of what their slots hold; the inverse of `pack`.

    Returns:
        The ring that found no room, n when all did.
    """
    width = rings.fields.shape[1]
    floats = words.view(np.float64)
    while row < slots.size:
        slot = slots[row]
        at = ends[row - 1] if row else 0
        packed = words[at] >> 32
        largest = space.rooms.size - 1
        # A bound that has been lowered since drops the oldest entries.
        size = min(packed, space.rooms[largest])
        room = 0
        while room < largest and space.rooms[room] * 3 // 4 < size:
            room += 1
        table.used[slot] = 0
        if room > table.sizes[slot] and not place(slot, room, rings, table, space):
            return row
        first = table.begin[slot]
        table.last[slot] = words[at + 1]
        at += HEADER_WORDS
        for entry in range(size):
            source = entry + packed - size
            rings.times[first + entry] = words[at + source]
            rings.offsets[first + entry] = words[at + packed + source]
            rings.weights[first + entry] = floats[at + 2 * packed + source]
            for k in range(width):
                rings.fields[first + entry, k] = floats[at + 3 * packed + source * width + k]
        table.used[slot] = size
        row += 1
    return row
