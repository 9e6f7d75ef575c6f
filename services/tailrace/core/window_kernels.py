"""Compiled loops of the event windows.

Rings lie in one arena per state, an entry in one row of words: TIME, OFFSET (int64), WEIGHT and from FIELD on
its fields (float64), so that a key that has gone cold comes back with one page and not with one per column. Slot s
owns `[begin[s], begin[s] + rooms[sizes[s]])`, of which the first `used[s]` entries are filled, sorted by time, ties by
offset. A place that a ring has outgrown is chained to the next free one of its size through its first time, so it is
used again; where free places add up, `compact` closes the gaps.

All of them stand in one file: compiled code is kept on disk and made anew when the file of the called
function changes, but not when one of those it calls does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

COUNT, SUM, MEAN, STD, MIN, MAX, DISTINCT, SINCE_LAST = range(8)
KINDS = ("count", "sum", "mean", "std", "min", "max", "distinct", "since_last")
TIME, OFFSET, WEIGHT, FIELD = range(4)
HEADER_WORDS = 2
"""Of a packed ring: format, fields and entries in one word, the last source offset in the other."""


class Rings(NamedTuple):
    """Arena: int64 (entries, FIELD + f), and the same bytes as float64."""

    words: NDArray[np.int64]
    values: NDArray[np.float64]


class Slots(NamedTuple):
    """By slot: where its ring begins, how many entries it holds, its newest source offset, its newest event time, index into `rooms`.

    The time stands in the ring too, which may lie on disk: who looks at all keys needs no ring.
    """

    begin: NDArray[np.int64]
    used: NDArray[np.int64]
    last: NDArray[np.int64]
    newest: NDArray[np.int64]
    sizes: NDArray[np.int8]


class Space(NamedTuple):
    """Entries of a place by size; first free place by size, -1 for none; `[end of the arena in use, entries merged, entries free, newest event time]`."""

    rooms: NDArray[np.int64]
    free: NDArray[np.int64]
    state: NDArray[np.int64]


class Bounds(NamedTuple):
    """How long entries are kept, how wide a tile is, how many entries never go into tiles, when a key is forgotten."""

    keep_ms: int
    hop_ms: int
    newest: int
    forget_ms: int


class Columns(NamedTuple):
    """What a row consists of: distinct spans, rising; by column its kind, its field and its index into `spans`."""

    spans: NDArray[np.int64]
    kinds: NDArray[np.int64]
    fields: NDArray[np.int64]
    span_of: NDArray[np.int64]


def compiled(function: Any) -> Any:
    """Compiles without the interpreter's lock, so that other threads work meanwhile; kept on disk."""
    return njit(cache=True, nogil=True)(function)


@compiled
def update(row, slots, at_ms, at_offset, at_fields, rings, table, space, bounds, columns, out):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Inserts events in order, from `row` on, and writes the row as of each to `out`.

    Returns:
        The event that found no room, n when all did, and how many events had been seen before.
    """
    replayed = 0
    spans, fields = columns.spans.size, rings.values.shape[1] - FIELD
    low = np.empty(spans, np.int64)
    sums = np.empty((spans, fields, 4))
    counts = np.empty(spans)
    distinct = np.empty((spans, fields))
    any_distinct = np.any(columns.kinds == DISTINCT)
    n = slots.size
    while row < n:
        slot, now, offset = slots[row], at_ms[row], at_offset[row]
        fresh = offset > table.last[slot]
        if fresh:
            if table.used[slot] and space.state[3] - table.newest[slot] >= bounds.forget_ms:
                # Whether it was swept away already must not show.
                table.used[slot] = 0
            if not make_room(slot, rings, table, space, bounds):
                return row, replayed
            space.state[3] = max(space.state[3], now)
            _insert(slot, now, offset, at_fields[row], rings, table)
        else:
            replayed += 1
        first = table.begin[slot]
        end = first + table.used[slot]
        # Entries behind `end` are later than the event; ones with a higher offset came after it.
        while end > first and rings.words[end - 1, TIME] > now:
            end -= 1
        ceiling = np.int64(9223372036854775807) if fresh else offset
        _lows(first, end, now, columns.spans, rings.words, low)
        _sums(low, end, ceiling, rings, counts, sums)
        if any_distinct:
            _distinct(low, end, ceiling, rings, columns, distinct)
        _cells(first, end, now, offset, ceiling, low, counts, sums, distinct, rings, columns, out[row])
        row += 1
    return row, replayed


@compiled
def _cells(first, end, now, offset, ceiling, low, counts, sums, distinct, rings, columns, cells):  # type: ignore[no-untyped-def]  # compiled
    """Fills in a row from what was added up by span."""
    for column in range(columns.kinds.size):
        at, k = columns.span_of[column], columns.fields[column]
        kind = columns.kinds[column]
        if kind == SINCE_LAST:
            cells[column] = _since_last(first, end, now, offset, rings)
        elif kind == COUNT:
            cells[column] = counts[at]
        elif kind == DISTINCT:
            cells[column] = distinct[at, k]
        elif kind == STD:
            cells[column] = _std(k, low[at], end, ceiling, sums[at, k], rings)
        else:
            cells[column] = _moment(kind, sums[at, k])


@compiled
def _insert(slot, now, offset, values, rings, table):  # type: ignore[no-untyped-def]  # compiled
    """Puts an entry where it belongs; there is room."""
    first = table.begin[slot]
    place = first + table.used[slot]
    while place > first and rings.words[place - 1, TIME] > now:
        copy(rings, place - 1, place)
        place -= 1
    rings.words[place, TIME] = now
    rings.words[place, OFFSET] = offset
    rings.values[place, WEIGHT] = 1.0
    for k in range(values.size):
        rings.values[place, FIELD + k] = values[k]
    table.used[slot] += 1
    table.last[slot] = offset
    table.newest[slot] = rings.words[first + table.used[slot] - 1, TIME]


@compiled
def _lows(first, end, now, spans, words, low):  # type: ignore[no-untyped-def]  # compiled
    """By span, the first entry within (now - span, now]."""
    high = end
    for at in range(spans.size):
        floor = now - spans[at]
        left, right = first, high
        while left < right:
            middle = (left + right) // 2
            if words[middle, TIME] > floor:
                right = middle
            else:
                left = middle + 1
        low[at] = high = left


@compiled
def _sums(low, end, ceiling, rings, counts, sums):  # type: ignore[no-untyped-def]  # compiled
    """By span, the number of entries, and by field number of values, sum, least and most.

    Every span is added up anew from its oldest entry on: what stands in a row does not depend on what
    was computed before, and so neither on restarts nor on how the stream was cut into batches.
    """
    for at in range(low.size):
        count = 0.0
        for entry in range(low[at], end):
            if rings.words[entry, OFFSET] <= ceiling:
                count += rings.values[entry, WEIGHT]
        counts[at] = count
        for k in range(rings.values.shape[1] - FIELD):
            number, total, least, most = 0.0, 0.0, np.inf, -np.inf
            for entry in range(low[at], end):
                value = rings.values[entry, FIELD + k]
                if rings.words[entry, OFFSET] <= ceiling and value == value:
                    number += rings.values[entry, WEIGHT]
                    total += value * rings.values[entry, WEIGHT]
                    least = min(least, value)
                    most = max(most, value)
            sums[at, k, 0] = number
            sums[at, k, 1] = total
            sums[at, k, 2] = least
            sums[at, k, 3] = most


@compiled
def _moment(kind, sums):  # type: ignore[no-untyped-def]  # compiled
    if kind == SUM:
        return sums[1]
    if kind == MEAN:
        return sums[1] / sums[0] if sums[0] > 0 else 0.0
    if sums[0] <= 0:
        return np.nan
    return sums[2] if kind == MIN else sums[3]


@compiled
def _std(k, low, end, ceiling, sums, rings):  # type: ignore[no-untyped-def]  # compiled
    if sums[0] < 2:
        return 0.0
    mean = sums[1] / sums[0]
    squares = 0.0
    for at in range(low, end):
        value = rings.values[at, FIELD + k]
        if rings.words[at, OFFSET] <= ceiling and value == value:
            squares += rings.values[at, WEIGHT] * (value - mean) ** 2
    return np.sqrt(squares / (sums[0] - 1))


@compiled
def _since_last(first, end, now, offset, rings):  # type: ignore[no-untyped-def]  # compiled
    for at in range(end - 1, first - 1, -1):
        if rings.words[at, OFFSET] < offset:
            return (now - rings.words[at, TIME]) / 1000.0
    return np.nan


@compiled
def _distinct(low, end, ceiling, rings, columns, distinct):  # type: ignore[no-untyped-def]  # compiled
    """By span and field, the number of different values: one walk back from the newest entry, with a hash set."""
    size = 16
    while size < 2 * (end - low[-1]):
        size *= 2
    seen = np.empty(size)
    probe = np.empty(1)
    bits = probe.view(np.int64)
    for k in range(rings.values.shape[1] - FIELD):
        if not np.any((columns.kinds == DISTINCT) & (columns.fields == k)):
            continue
        seen[:] = np.nan
        number = 0.0
        entry = end - 1
        for at in range(low.size):
            while entry >= low[at]:
                value = rings.values[entry, FIELD + k] + 0.0  # -0.0 is 0.0
                if rings.words[entry, OFFSET] <= ceiling and value == value:
                    probe[0] = value
                    # Fibonacci hashing: numbers of few digits differ in their high bits only.
                    place = (bits[0] * np.int64(-7046029254386353131) >> np.int64(32)) & (size - 1)
                    while seen[place] == seen[place] and seen[place] != value:
                        place = (place + 1) & (size - 1)
                    if seen[place] != seen[place]:
                        seen[place] = value
                        number += 1.0
                entry -= 1
            distinct[at, k] = number


@compiled
def forgotten(slots, table, space, forget_ms):  # type: ignore[no-untyped-def]  # compiled
    """Which of the first `slots` slots no event can need any more, bool (slots,)."""
    out = np.empty(slots, np.bool_)
    for slot in range(slots):
        out[slot] = table.used[slot] == 0 or space.state[3] - table.newest[slot] >= forget_ms
    return out


@compiled
def copy(rings, source, target):  # type: ignore[no-untyped-def]  # compiled
    """Copies an entry."""
    for word in range(rings.words.shape[1]):
        rings.words[target, word] = rings.words[source, word]


@compiled
def make_room(slot, rings, table, space, bounds):  # type: ignore[no-untyped-def]  # compiled
    """Makes room for one more entry; False when the arena must grow first.

    A place that is full is exchanged for one that fits what is left after trimming, also for a smaller one: were places
    only ever exchanged for larger ones, each key would come to hold that of the busiest time it ever had, and
    memory would rise for as long as there are new records.
    """
    size = table.sizes[slot]
    if size >= 0 and table.used[slot] < space.rooms[size]:
        return True
    if size >= 0:
        trim(slot, bounds.keep_ms, rings, table)
    fits = fitting(table.used[slot], space)
    if fits > size:
        return place(slot, fits, rings, table, space)
    if fits < size:
        # Where there is none, the ring stays: it has room, and the arena need not grow for a smaller place.
        place(slot, fits, rings, table, space)
    elif table.used[slot] > space.rooms[size] * 3 // 4:
        space.state[1] += merge(slot, bounds.hop_ms, bounds.newest, rings, table)
        # The tiles of the span are few: whatever is still too much lies behind it.
        space.state[1] += cut(slot, table.used[slot] - space.rooms[size] * 3 // 4, rings, table)
    return True


@compiled
def fitting(entries, space):  # type: ignore[no-untyped-def]  # compiled
    """The least size of a place of which these entries leave a quarter free; the largest where none does.

    With less free, trimming would be tried again with every event.
    """
    size = 0
    while size < space.rooms.size - 1 and space.rooms[size] * 3 // 4 < entries:
        size += 1
    return size


@compiled
def place(slot, size, rings, table, space):  # type: ignore[no-untyped-def]  # compiled
    """Moves a ring to a place of another size; False when the arena must grow first."""
    at = space.free[size]
    if at >= 0:
        space.free[size] = rings.words[at, TIME]
        space.state[2] -= space.rooms[size]
    else:
        at = space.state[0]
        if at + space.rooms[size] > rings.words.shape[0]:
            return False
        space.state[0] += space.rooms[size]
    first, former = table.begin[slot], table.sizes[slot]
    for entry in range(table.used[slot]):
        copy(rings, first + entry, at + entry)
    if former >= 0:
        rings.words[first, TIME] = space.free[former]
        space.free[former] = first
        space.state[2] += space.rooms[former]
    table.begin[slot] = at
    table.sizes[slot] = size
    return True


@compiled
def compact(order, at, rings, table, space):  # type: ignore[no-untyped-def]  # compiled
    """Moves rings down to `at`, in the order in which they lie, which `order` gives; returns the end of the last."""
    for slot in order:
        first = table.begin[slot]
        if first != at:
            for entry in range(table.used[slot]):
                copy(rings, first + entry, at + entry)
            table.begin[slot] = at
        at += space.rooms[table.sizes[slot]]
    return at


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
    horizon_ms = rings.words[end - 1, TIME] - keep_ms
    keep = first
    while keep < end and rings.words[keep, TIME] <= horizon_ms:
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
        if at < old and rings.words[at, TIME] // hop_ms == rings.words[tile, TIME] // hop_ms:
            weight = rings.values[tile, WEIGHT] + rings.values[at, WEIGHT]
            for k in range(rings.values.shape[1] - FIELD):
                change = rings.values[at, FIELD + k] - rings.values[tile, FIELD + k]
                rings.values[tile, FIELD + k] += change * (rings.values[at, WEIGHT] / weight)
            rings.values[tile, WEIGHT] = weight
            rings.words[tile, TIME] = rings.words[at, TIME]
            rings.words[tile, OFFSET] = max(rings.words[tile, OFFSET], rings.words[at, OFFSET])
        else:
            tile += 1
            copy(rings, at, tile)
    table.used[slot] = tile + 1 - first
    return end - tile - 1


@compiled
def pack(slots, form, rings, table, words, ends):  # type: ignore[no-untyped-def]  # compiled
    """Writes the packed rings of slots one behind the other into `words`, and where each ends, in words, into `ends`."""
    width = rings.values.shape[1] - FIELD
    at = 0
    floats = words.view(np.float64)
    for row in range(slots.size):
        first, size = table.begin[slots[row]], table.used[slots[row]]
        words[at] = form | width << 16 | size << 32
        words[at + 1] = table.last[slots[row]]
        at += HEADER_WORDS
        for entry in range(size):
            words[at + entry] = rings.words[first + entry, TIME]
            words[at + size + entry] = rings.words[first + entry, OFFSET]
            floats[at + 2 * size + entry] = rings.values[first + entry, WEIGHT]
            for k in range(width):
                floats[at + 3 * size + entry * width + k] = rings.values[first + entry, FIELD + k]
        at += size * (3 + width)
        ends[row] = at


@compiled
def unpack(row, slots, words, ends, rings, table, space):  # type: ignore[no-untyped-def]  # compiled
    """Puts packed rings, from `row` on, in place of what their slots hold; the inverse of `pack`.

    Returns:
        The ring that found no room, n when all did.
    """
    width = rings.values.shape[1] - FIELD
    floats = words.view(np.float64)
    while row < slots.size:
        slot = slots[row]
        at = ends[row - 1] if row else 0
        packed = words[at] >> 32
        # A bound that has been lowered since drops the oldest entries.
        size = min(packed, space.rooms[-1])
        room = fitting(size, space)
        table.used[slot] = 0
        if room > table.sizes[slot] and not place(slot, room, rings, table, space):
            return row
        first = table.begin[slot]
        table.last[slot] = words[at + 1]
        at += HEADER_WORDS
        for entry in range(size):
            source = entry + packed - size
            rings.words[first + entry, TIME] = words[at + source]
            rings.words[first + entry, OFFSET] = words[at + packed + source]
            rings.values[first + entry, WEIGHT] = floats[at + 2 * packed + source]
            for k in range(width):
                rings.values[first + entry, FIELD + k] = floats[at + 3 * packed + source * width + k]
        table.used[slot] = size
        if size:
            table.newest[slot] = rings.words[first + size - 1, TIME]
            space.state[3] = max(space.state[3], table.newest[slot])
        row += 1
    return row
