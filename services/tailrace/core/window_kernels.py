"""Compiled loops that compute the rows of the event windows; `window_rings` says where entries lie."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.core.window_rings import compiled, copy, make_room

COUNT, SUM, MEAN, STD, MIN, MAX, DISTINCT, SINCE_LAST = range(8)
KINDS = ("count", "sum", "mean", "std", "min", "max", "distinct", "since_last")


class Columns(NamedTuple):
    """What a row consists of: distinct spans, rising; by column its kind, its field and its index into `spans`."""

    spans: NDArray[np.int64]
    kinds: NDArray[np.int64]
    fields: NDArray[np.int64]
    span_of: NDArray[np.int64]


@compiled
def update(row, slots, at_ms, at_offset, at_fields, rings, table, space, bounds, columns, out):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Inserts events in order, from `row` on, and writes the row as of each to `out`.

    Returns:
        The event that found no room, n when all did, and how many events had been seen before.
    """
    replayed = 0
    spans, fields = columns.spans.size, rings.fields.shape[1]
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
            if not make_room(slot, rings, table, space, bounds):
                return row, replayed
            _insert(slot, now, offset, at_fields[row], rings, table)
        else:
            replayed += 1
        first = table.begin[slot]
        end = first + table.used[slot]
        # Entries behind `end` are later than the event; ones with a higher offset came after it.
        while end > first and rings.times[end - 1] > now:
            end -= 1
        ceiling = np.int64(9223372036854775807) if fresh else offset
        _lows(first, end, now, columns.spans, rings.times, low)
        _sums(low, end, ceiling, rings, counts, sums)
        if any_distinct:
            _distinct(low, end, ceiling, rings, columns, distinct)
        for column in range(columns.kinds.size):
            at, k = columns.span_of[column], columns.fields[column]
            kind = columns.kinds[column]
            if kind == SINCE_LAST:
                out[row, column] = _since_last(first, end, now, offset, rings)
            elif kind == COUNT:
                out[row, column] = counts[at]
            elif kind == DISTINCT:
                out[row, column] = distinct[at, k]
            elif kind == STD:
                out[row, column] = _std(k, low[at], end, ceiling, sums[at, k], rings)
            else:
                out[row, column] = _moment(kind, sums[at, k])
        row += 1
    return row, replayed


@compiled
def _insert(slot, now, offset, values, rings, table):  # type: ignore[no-untyped-def]  # compiled
    """Puts an entry where it belongs; there is room."""
    first = table.begin[slot]
    place = first + table.used[slot]
    while place > first and rings.times[place - 1] > now:
        copy(rings, place - 1, place)
        place -= 1
    rings.times[place] = now
    rings.offsets[place] = offset
    rings.weights[place] = 1.0
    for k in range(values.size):
        rings.fields[place, k] = values[k]
    table.used[slot] += 1
    table.last[slot] = offset


@compiled
def _lows(first, end, now, spans, times, low):  # type: ignore[no-untyped-def]  # compiled
    """By span, the first entry within (now - span, now]."""
    high = end
    for at in range(spans.size):
        floor = now - spans[at]
        left, right = first, high
        while left < right:
            middle = (left + right) // 2
            if times[middle] > floor:
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
            if rings.offsets[entry] <= ceiling:
                count += rings.weights[entry]
        counts[at] = count
        for k in range(rings.fields.shape[1]):
            number, total, least, most = 0.0, 0.0, np.inf, -np.inf
            for entry in range(low[at], end):
                value = rings.fields[entry, k]
                if rings.offsets[entry] <= ceiling and value == value:
                    number += rings.weights[entry]
                    total += value * rings.weights[entry]
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
        value = rings.fields[at, k]
        if rings.offsets[at] <= ceiling and value == value:
            squares += rings.weights[at] * (value - mean) ** 2
    return np.sqrt(squares / (sums[0] - 1))


@compiled
def _since_last(first, end, now, offset, rings):  # type: ignore[no-untyped-def]  # compiled
    for at in range(end - 1, first - 1, -1):
        if rings.offsets[at] < offset:
            return (now - rings.times[at]) / 1000.0
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
    for k in range(rings.fields.shape[1]):
        if not np.any((columns.kinds == DISTINCT) & (columns.fields == k)):
            continue
        seen[:] = np.nan
        number = 0.0
        entry = end - 1
        for at in range(low.size):
            while entry >= low[at]:
                value = rings.fields[entry, k] + 0.0  # -0.0 is 0.0
                if rings.offsets[entry] <= ceiling and value == value:
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
