"""Compiled loops of the event windows.

Rings lie in one arena per state: `times`, `offsets` (int64), `weights` (float64) and `fields`
(float64, one row per entry). Slot s owns `[begin[s], begin[s] + room[s])`, of which the first
`used[s]` entries are filled, sorted by time, ties by offset.
"""

from __future__ import annotations

import numpy as np
from numba import njit

COUNT, SUM, MEAN, STD, MIN, MAX, DISTINCT, SINCE_LAST = range(8)
KINDS = ("count", "sum", "mean", "std", "min", "max", "distinct", "since_last")


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def update(  # type: ignore[no-untyped-def]  # compiled  # hot path
    slots, at_ms, at_offset, at_fields, times, offsets, weights, fields, begin, used, last_offset, spans, kinds, columns
):
    """Inserts events in order and gives the row as of each; the caller has made room.

    Returns:
        float64 (n, d) rows, and how many events had been seen before.
    """
    n, d, f = slots.size, spans.size, fields.shape[1]
    out = np.empty((n, d))
    replayed = 0
    for row in range(n):
        slot, now, offset = slots[row], at_ms[row], at_offset[row]
        first = begin[slot]
        end = first + used[slot]
        if offset <= last_offset[slot]:
            replayed += 1
        else:
            last_offset[slot] = offset
            place = end
            while place > first and times[place - 1] > now:
                times[place] = times[place - 1]
                offsets[place] = offsets[place - 1]
                weights[place] = weights[place - 1]
                for k in range(f):
                    fields[place, k] = fields[place - 1, k]
                place -= 1
            times[place] = now
            offsets[place] = offset
            weights[place] = 1.0
            for k in range(f):
                fields[place, k] = at_fields[row, k]
            used[slot] += 1
            end += 1
        # Entries behind `end` are later than the event; ones with a higher offset came after it.
        while end > first and times[end - 1] > now:
            end -= 1
        for column in range(d):
            low = end
            floor = now - spans[column]
            while low > first and times[low - 1] > floor:
                low -= 1
            out[row, column] = _value(
                kinds[column], columns[column], first, low, end, now, offset, times, offsets, weights, fields
            )
    return out, replayed


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def _value(kind, k, first, low, end, now, offset, times, offsets, weights, fields):  # type: ignore[no-untyped-def]  # compiled
    if kind == 7:
        for at in range(end - 1, first - 1, -1):
            if offsets[at] < offset:
                return (now - times[at]) / 1000.0
        return np.nan
    if kind == 6:
        return _distinct(k, low, end, offset, offsets, fields)
    count = 0.0
    total = 0.0
    least = np.inf
    most = -np.inf
    for at in range(low, end):
        if offsets[at] > offset:
            continue
        count += weights[at]
        if kind != 0:
            value = fields[at, k]
            if value == value:
                total += value * weights[at]
                least = min(least, value)
                most = max(most, value)
            else:
                count -= weights[at]
    if kind == 0:
        return count
    if kind == 1:
        return total
    if kind == 2:
        return total / count if count > 0 else 0.0
    if kind == 4:
        return least if count > 0 else np.nan
    if kind == 5:
        return most if count > 0 else np.nan
    if count < 2:
        return 0.0
    mean = total / count
    squares = 0.0
    for at in range(low, end):
        if offsets[at] <= offset and fields[at, k] == fields[at, k]:
            squares += weights[at] * (fields[at, k] - mean) ** 2
    return np.sqrt(squares / (count - 1))


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def _distinct(k, low, end, offset, offsets, fields):  # type: ignore[no-untyped-def]  # compiled
    seen = np.empty(end - low)
    size = 0
    for at in range(low, end):
        if offsets[at] <= offset and fields[at, k] == fields[at, k]:
            seen[size] = fields[at, k]
            size += 1
    if size == 0:
        return 0.0
    ordered = np.sort(seen[:size])
    different = 1.0
    for at in range(1, size):
        if ordered[at] != ordered[at - 1]:
            different += 1.0
    return different


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def cut(slot, moved, times, offsets, weights, fields, begin, used):  # type: ignore[no-untyped-def]  # compiled
    """Drops the oldest `moved` entries of a slot; returns how many that were."""
    if moved <= 0:
        return 0
    first = begin[slot]
    for at in range(first + moved, first + used[slot]):
        times[at - moved] = times[at]
        offsets[at - moved] = offsets[at]
        weights[at - moved] = weights[at]
        fields[at - moved] = fields[at]
    used[slot] -= moved
    return moved


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def trim(slot, horizon_ms, times, offsets, weights, fields, begin, used):  # type: ignore[no-untyped-def]  # compiled
    """Drops the entries of a slot that no window can reach, except the newest of them: `since_last` asks for it."""
    first = begin[slot]
    end = first + used[slot]
    keep = first
    while keep < end and times[keep] <= horizon_ms:
        keep += 1
    cut(slot, keep - 1 - first, times, offsets, weights, fields, begin, used)


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def merge(slot, hop_ms, newest, times, offsets, weights, fields, begin, used):  # type: ignore[no-untyped-def]  # compiled
    """Merges all but the `newest` entries of a slot into tiles of `hop_ms`: weights add, fields become weighted means.

    Returns:
        How many entries went into tiles.
    """
    first = begin[slot]
    end = first + used[slot]
    old = max(end - newest, first)
    place = first
    for at in range(first + 1, end):
        if at < old and times[at] // hop_ms == times[place] // hop_ms:
            weight = weights[place] + weights[at]
            for k in range(fields.shape[1]):
                fields[place, k] += (fields[at, k] - fields[place, k]) * (weights[at] / weight)
            weights[place] = weight
            times[place] = times[at]
            offsets[place] = max(offsets[place], offsets[at])
        else:
            place += 1
            times[place] = times[at]
            offsets[place] = offsets[at]
            weights[place] = weights[at]
            fields[place] = fields[at]
    used[slot] = place + 1 - first
    return end - place - 1
