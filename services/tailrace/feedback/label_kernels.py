"""Compiled writing of label records: the text of each prediction and its columns between fixed pieces of JSON."""

from __future__ import annotations

from numba import njit

_QUOTE, _COMMA, _MINUS, _ZERO, _OPEN, _CLOSE = 34, 44, 45, 48, 123, 125
MOST_DIGITS = 20
"""Characters of a 64-bit integer."""


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def write_records(  # type: ignore[no-untyped-def]  # compiled  # hot path
    texts, text_ends, numbers, floats, choices, pieces, piece_ends, out, ends, keys
):
    """Writes records; gives the bytes written.

    A record is: piece 0, prediction id, piece 1, event id, piece 2, number 0, piece 3, first float, a chosen piece,
    number 1, piece 4, number 2, piece 5, number 3, a chosen piece, second float, a chosen piece, key, piece 6,
    entities, a chosen piece.

    Args:
        texts: uint8, `join_table.Text` as JSON arrays without blanks and without escapes, one behind the other.
        text_ends: int64 (n,), where each ends.
        numbers: int64 (n, 4); the least one there is stands for null.
        floats: uint8, JSON of two numbers for each record, a comma behind each.
        choices: int64 (n, 4), the pieces that are chosen.
        pieces: uint8, all pieces, one behind the other.
        piece_ends: int64, where each ends.
        out: uint8, large enough.
        ends: int64 (n,), takes where each record ends.
        keys: int64 (n, 2), takes where the prediction ids stand in `texts`, without their quotes.
    """
    size, start, at = 0, 0, 0
    for record in range(text_ends.size):
        identity = _text_end(texts, start + 1)
        event = _text_end(texts, identity + 1)
        key = _text_end(texts, event + 1)
        keys[record, 0], keys[record, 1] = start + 2, identity - 1
        size = _put_piece(out, size, pieces, piece_ends, 0)
        size = _put(out, size, texts, start + 1, identity)
        size = _put_piece(out, size, pieces, piece_ends, 1)
        size = _put(out, size, texts, identity + 1, event)
        size = _put_number(out, _put_piece(out, size, pieces, piece_ends, 2), numbers[record, 0])
        size, at = _put_float(out, _put_piece(out, size, pieces, piece_ends, 3), floats, at)
        size = _put_number(out, _put_piece(out, size, pieces, piece_ends, choices[record, 0]), numbers[record, 1])
        size = _put_number(out, _put_piece(out, size, pieces, piece_ends, 4), numbers[record, 2])
        size = _put_number(out, _put_piece(out, size, pieces, piece_ends, 5), numbers[record, 3])
        size, at = _put_float(out, _put_piece(out, size, pieces, piece_ends, choices[record, 1]), floats, at)
        size = _put_piece(out, size, pieces, piece_ends, choices[record, 2])
        size = _put(out, size, texts, event + 1, key)
        size = _put_piece(out, size, pieces, piece_ends, 6)
        size = _put(out, size, texts, key + 1, _object_end(texts, key + 1))
        size = _put_piece(out, size, pieces, piece_ends, choices[record, 3])
        ends[record], start = size, text_ends[record]
    return size


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _text_end(texts, at):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Place behind the text that begins at `at`."""
    at += 1
    while texts[at] != _QUOTE:
        at += 1
    return at + 1


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _object_end(texts, at):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Place behind the object that begins at `at`."""
    depth = 0
    while True:
        if texts[at] == _QUOTE:
            at = _text_end(texts, at)
            continue
        depth += 1 if texts[at] == _OPEN else -1 if texts[at] == _CLOSE else 0
        at += 1
        if depth == 0:
            return at


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _put(out, size, data, start, end):  # type: ignore[no-untyped-def]  # compiled  # hot path
    for step in range(end - start):
        out[size + step] = data[start + step]
    return size + end - start


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _put_piece(out, size, pieces, ends, number):  # type: ignore[no-untyped-def]  # compiled  # hot path
    return _put(out, size, pieces, ends[number - 1] if number else 0, ends[number])


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _put_float(out, size, floats, at):  # type: ignore[no-untyped-def]  # compiled  # hot path
    while floats[at] != _COMMA:
        out[size] = floats[at]
        size, at = size + 1, at + 1
    return size, at + 1


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _put_number(out, size, number):  # type: ignore[no-untyped-def]  # compiled  # hot path
    if number == -(2**63):
        out[size], out[size + 1], out[size + 2], out[size + 3] = 110, 117, 108, 108  # null
        return size + 4
    if number < 0:
        out[size] = _MINUS
        size, number = size + 1, -number
    digits, rest = 1, number // 10
    while rest:
        digits, rest = digits + 1, rest // 10
    for place in range(size + digits - 1, size - 1, -1):
        out[place] = _ZERO + number % 10
        number //= 10
    return size + digits
