"""Compiled scan of predictions as `inference` writes them: where the fields stand that labels need.

What is scanned is JSON without blanks between its tokens, without escapes, and with plain ASCII in the ids. Anything
else is given up on and left to the parser; nothing is guessed. Fields that nobody asks for are stepped over and not looked into.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FIELDS = (
    b"prediction_id",
    b"event_id",
    b"key",
    b"variant",
    b"model_version",
    b"entities",
    b"slices",
    b"features",
    b"score",
    b"event_time_ms",
    b"decision",
    b"activated",
    b"blocked",
)
PREDICTION_ID, EVENT_ID, KEY, VARIANT, VERSION, ENTITIES, SLICES, FEATURES, SCORE, TIME, DECISION = range(11)
ACTIVATED_FIELD, BLOCKED_FIELD = 11, 12
NEEDED = DECISION + 1
"""Those before have no default."""
_QUOTE, _COMMA, _COLON, _MINUS = 34, 44, 58, 45
_OPEN_LIST, _CLOSE_LIST, _OPEN, _CLOSE = 91, 93, 123, 125
_TRUE, _FALSE = np.frombuffer(b"true", np.uint8).copy(), np.frombuffer(b"false", np.uint8).copy()
_DIGITS = 18
"""Digits that fit 64 bits."""


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def scan(data, ends, names, lengths, spans):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Finds fields; False where a record is not as described above.

    Args:
        data: uint8 (bytes,), records one behind the other, without a backslash: every quote opens or closes a text.
        ends: int64 (n,), where each ends.
        names: uint8 (fields, longest), their names.
        lengths: int64 (fields,), of the names.
        spans: int64 (n, fields, 2), takes where the values begin and end; -1 where a field is missing.
    """
    quotes = _quotes(data)
    start, quote = 0, 0
    for record in range(ends.size):
        quote = _scan_record(data, start, ends[record], quotes, quote, names, lengths, spans, record)
        if quote < 0:
            return False
        start = ends[record]
    return True


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _quotes(data):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Places of all quotes, and behind them twice the end."""
    found, count = np.empty(data.size + 2, np.int64), 0
    for at in range(data.size):
        if data[at] == _QUOTE:
            found[count] = at
            count += 1
    found[count : count + 2] = data.size
    return found[: count + 2]


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _scan_record(  # type: ignore[no-untyped-def]  # compiled  # hot path
    data, at, end, quotes, quote, names, lengths, spans, record
):
    """Finds the fields of one; gives the number of the first quote behind it, -1 where it is not as it should be."""
    if end - at < 2 or data[at] != _OPEN or data[end - 1] != _CLOSE:
        return -1
    for field in range(lengths.size):
        spans[record, field, 0] = -1
    while at < end - 1:
        name = at + 2  # behind the brace or the comma, and the quote
        value = quotes[quote + 1] + 2 if quote + 1 < quotes.size else end
        if quotes[quote] != name - 1 or value >= end or data[value - 1] != _COLON:
            return -1
        field = _field(data, name, value - 2 - name, names, lengths)
        at, quote = _behind_value(data, value, end, quotes, quote + 2)
        if at < 0 or (data[at] != _COMMA and at != end - 1):
            return -1
        if field >= 0:
            if not _fits(data, field, value, at):
                return -1
            spans[record, field, 0], spans[record, field, 1] = value, at
    for field in range(NEEDED):
        if spans[record, field, 0] < 0:
            return -1
    return quote


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _field(data, name, length, names, lengths):  # type: ignore[no-untyped-def]  # compiled  # hot path
    for field in range(lengths.size):
        if lengths[field] == length and _same(data, name, names[field], length):
            return field
    return -1


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _same(data, at, other, length):  # type: ignore[no-untyped-def]  # compiled  # hot path
    for step in range(length):  # noqa: SIM110  # compiled: no generators
        if data[at + step] != other[step]:
            return False
    return True


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _behind_value(data, at, end, quotes, quote):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Place behind the value that begins at `at`, -1 where it does not end; and the number of the next quote."""
    first, following = data[at], quotes[quote]
    if first == _QUOTE:
        behind = quotes[quote + 1] + 1
        return (behind if behind < end else -1), quote + 2
    if first != _OPEN and (first != _OPEN_LIST or (following < end and data[following - 2] == _CLOSE_LIST)):
        # A number, a word, or a list without texts: it ends before the comma of the next field. A list with texts
        # behind a list in it is taken for one that has ended, and found out: no colon is behind the text.
        if following >= end:
            return end - 1, quote
        return (following - 1 if data[following - 1] == _COMMA else -1), quote
    depth = 0
    while at < end:
        byte = data[at]
        if byte == _QUOTE:
            at = quotes[quote + 1]
            quote += 2
        elif byte in (_OPEN, _OPEN_LIST):
            depth += 1
        elif byte in (_CLOSE, _CLOSE_LIST):
            depth -= 1
            if depth == 0:
                return (at + 1 if at + 1 < end else -1), quote
        at += 1
    return -1, quote


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _fits(data, field, value, end):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Whether a value is of the type of its field."""
    if field <= VERSION:
        if data[value] != _QUOTE:
            return False
        for at in range(value + 1, end - 1):  # noqa: SIM110  # as above
            if data[at] < 32 or data[at] > 126:
                return False
        return True
    if field in (ENTITIES, SLICES):
        return data[value] == _OPEN
    if field == FEATURES:
        return data[value] == _OPEN_LIST
    if field == SCORE:
        return end > value and data[value] < 58 and data[value] != _QUOTE
    if field == TIME:
        first = value + 1 if data[value] == _MINUS else value
        if end - first < 1 or end - first > _DIGITS or (data[first] == 48 and end - first > 1):
            return False
        for at in range(first, end):  # noqa: SIM110  # as above
            if data[at] < 48 or data[at] > 57:
                return False
        return True
    return (end - value == 4 and _same(data, value, _TRUE, 4)) or (end - value == 5 and _same(data, value, _FALSE, 5))


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def read_times(data, spans, times_ms):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Reads event times, int64 (n,)."""
    for record in range(spans.shape[0]):
        at, end = spans[record, TIME]
        negative = data[at] == _MINUS
        total = 0
        for place in range(at + 1 if negative else at, end):
            total = total * 10 + (data[place] - 48)
        times_ms[record] = -total if negative else total


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def read_flags(data, spans, flags, decided, activated, blocked):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Reads decisions and what became of them, uint8 (n,): sums of the bits given."""
    for record in range(spans.shape[0]):
        found = decided if data[spans[record, DECISION, 0]] == _TRUE[0] else 0
        at = spans[record, ACTIVATED_FIELD, 0]
        if at < 0 or data[at] == _TRUE[0]:
            found |= activated
        at = spans[record, BLOCKED_FIELD, 0]
        if at >= 0 and data[at] == _TRUE[0]:
            found |= blocked
        flags[record] = found


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def gather(data, spans, fields, opening, closing, out, ends):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Writes some fields of each record into `out`, commas between them; gives the bytes written.

    Args:
        data: uint8, the records.
        spans: int64 (n, fields, 2), as `scan` found them.
        fields: int64 (k,), which.
        opening: Byte before each record's fields; 0 for none.
        closing: Byte behind them; 0 for none.
        out: uint8, large enough.
        ends: int64 (n,), takes where each record ends in `out`.
    """
    size = 0
    for record in range(spans.shape[0]):
        if opening:
            out[size] = opening
            size += 1
        for number in range(fields.size):
            if number:
                out[size] = _COMMA
                size += 1
            first, last = spans[record, fields[number]]
            for at in range(first, last):
                out[size] = data[at]
                size += 1
        if closing:
            out[size] = closing
            size += 1
        ends[record] = size
    return size


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def number_cohorts(data, spans, numbers):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Numbers records alike in variant, version and slices, int64 (n,); gives int64 (k,), the first of each number."""
    size = 1
    while size < 2 * spans.shape[0]:
        size *= 2
    table, firsts, known = np.full(size, -1, np.int64), np.empty(spans.shape[0], np.int64), 0
    for record in range(spans.shape[0]):
        mixed = np.uint64(14695981039346656037)  # FNV-1a (Fowler, Noll and Vo)
        for field in (VARIANT, VERSION, SLICES):
            for at in range(spans[record, field, 0], spans[record, field, 1]):
                mixed = (mixed ^ np.uint64(data[at])) * np.uint64(1099511628211)
        place = np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(size - 1))
        while table[place] >= 0 and not _alike(data, spans[record], spans[firsts[table[place]]]):
            place = (place + 1) & (size - 1)
        if table[place] < 0:
            table[place], firsts[known] = known, record
            known += 1
        numbers[record] = table[place]
    return firsts[:known].copy()


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _alike(data, one, other):  # type: ignore[no-untyped-def]  # compiled  # hot path
    for field in (VARIANT, VERSION, SLICES):
        length = one[field, 1] - one[field, 0]
        if other[field, 1] - other[field, 0] != length:
            return False
        for step in range(length):
            if data[one[field, 0] + step] != data[other[field, 0] + step]:
                return False
    return True
