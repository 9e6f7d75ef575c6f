"""The byte format of Feast's Redis online store, without Feast.

One Redis hash per entity: its key is Feast's entity key serialization version 3 followed by the
project name; a field per feature (murmur3 of "view:feature") holds a protobuf `Value`, the field
`_ts:<view>` a protobuf `Timestamp`. Feast reads what is encoded here and the other way round; the
tests compare byte for byte. We add one field of our own, `_state:<view>`, which Feast ignores.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import mmh3
import numpy as np
from numba import njit
from numpy.typing import NDArray

PROJECT = "tailrace"
"""Name of the Feast project; part of every Redis key."""

_STRING = 2  # feast.types.ValueType.STRING
_DOUBLE = 0x29  # field 5 (double_val), 64 bits
_FLOAT = 0x35  # field 6 (float_val), 32 bits
_INTEGERS = frozenset({0x18, 0x20, 0x38})  # fields 3, 4, 7 (int32_val, int64_val, bool_val), varint
_WIDTH = 9
_NULL = struct.pack("<Bd", _DOUBLE, float("nan"))
"""What a missing cell is read as."""


def entity_keys(entity: str, keys: Sequence[str]) -> list[bytes]:
    """Redis keys of entities with one string join key.

    Args:
        entity: Name of the join key.
        keys: Its values.
    """
    name = entity.encode()
    head = struct.pack("<III", 1, _STRING, len(name)) + name + struct.pack("<I", _STRING)
    tail = PROJECT.encode()
    encoded = [key.encode() for key in keys]
    return [head + len(key).to_bytes(4, "little") + key + tail for key in encoded]


def hash_fields(view: str, columns: Sequence[str]) -> list[bytes]:
    """Names of the hash fields of a view: its columns, then the timestamp, then the state."""
    features = [struct.pack("<I", mmh3.hash(f"{view}:{column}", signed=False)) for column in columns]
    return [*features, f"_ts:{view}".encode(), f"_state:{view}".encode()]


def encode_values(values: NDArray[np.float64]) -> list[bytes]:
    """Protobuf `Value`s of every row, 9 bytes each, one behind the other.

    Args:
        values: float64 (n, d); NaN becomes 9 zero bytes, in whose place belongs the empty `Value`, which Feast
            reads as null.

    Returns:
        n byte strings of length 9 d.
    """
    n, d = values.shape
    packed = np.empty((n, d, _WIDTH), np.uint8)
    packed[:, :, 0] = _DOUBLE
    packed[:, :, 1:] = np.ascontiguousarray(values, "<f8").view(np.uint8).reshape(n, d, 8)
    packed[np.isnan(values)] = 0
    raw = packed.tobytes()
    width = d * _WIDTH
    return [raw[at : at + width] for at in range(0, n * width, width)] if width else [b""] * n


def decode_values(cells: Sequence[bytes | None]) -> NDArray[np.float64]:
    """Numbers of protobuf `Value`s: float64 (n,); NaN where absent, null or no number."""
    filled = [cell or _NULL for cell in cells]
    raw = b"".join(filled)
    if len(raw) == _WIDTH * len(filled) and set(map(len, filled)) <= {_WIDTH}:
        table = np.frombuffer(raw, np.uint8).reshape(-1, _WIDTH)
        if bool(np.all(table[:, 0] == _DOUBLE)):
            return np.ascontiguousarray(table[:, 1:]).view("<f8").reshape(-1).astype(np.float64)
    return np.array([_decode(cell) for cell in cells], np.float64)


def encode_timestamp(at_ms: int) -> bytes:
    """Protobuf `Timestamp` of epoch milliseconds >= 0."""
    seconds, rest_ms = divmod(at_ms, 1_000)
    return _seconds(seconds) + _NANOS[rest_ms]


def decode_timestamps(texts: Sequence[bytes | None]) -> NDArray[np.int64]:  # hot path
    """Epoch milliseconds of protobuf `Timestamp`s: int64 (n,); -1 where there is none."""
    there = [text or b"" for text in texts]
    bounds = np.zeros(len(there) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, there), np.int64, len(there)), out=bounds[1:])
    stamps: NDArray[np.int64] = _milliseconds(np.frombuffer(b"".join(there), np.uint8), bounds)
    # No bytes at all are a `Timestamp` too: 1970.
    stamps[np.fromiter((text is None for text in texts), np.bool_, len(there))] = -1
    return stamps


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def _milliseconds(raw: Any, bounds: Any) -> Any:
    out = np.zeros(bounds.size - 1, np.int64)
    for row in range(out.size):
        at, end = bounds[row], bounds[row + 1]
        seconds = nanos = 0
        while at < end:
            tag = raw[at]
            number = shift = 0
            at += 1
            while at < end:
                byte: Any = np.int64(raw[at])
                number |= (byte & 0x7F) << shift
                shift += 7
                at += 1
                if byte < 0x80:
                    break
            if tag == 0x08:
                seconds = number
            elif tag == 0x10:
                nanos = number
        out[row] = seconds * 1_000 + nanos // 1_000_000
    return out


def _decode(cell: bytes | None) -> float:
    if not cell:
        return float("nan")
    if cell[0] == _DOUBLE and len(cell) == _WIDTH:
        return float(struct.unpack_from("<d", cell, 1)[0])
    if cell[0] == _FLOAT and len(cell) == 5:
        return float(struct.unpack_from("<f", cell, 1)[0])
    if cell[0] in _INTEGERS:
        number, _ = _read_varint(cell, 1)
        return float(number - 2**64 if number >= 2**63 else number)
    return float("nan")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


@lru_cache(100_000)
def _seconds(seconds: int) -> bytes:
    return b"\x08" + _varint(seconds) if seconds else b""


_NANOS = [b"\x10" + _varint(rest_ms * 1_000_000) if rest_ms else b"" for rest_ms in range(1_000)]
"""Second half of a `Timestamp`, by milliseconds."""


def _read_varint(text: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(text):
        number |= (text[at] & 0x7F) << shift
        at += 1
        if text[at - 1] < 0x80:
            break
        shift += 7
    return number, at
