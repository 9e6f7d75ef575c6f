"""Records that no decoder should accept, of twenty kinds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

MEGABYTE = 1_000_000
FAR_FUTURE_MS = 7_258_118_400_000
"""2200-01-01; beyond any `max_ahead`, within int64."""


class Malformed(NamedTuple):
    """A record that must end as a dead letter; `kind` says what is wrong with it."""

    kind: str
    value: bytes | None


KINDS = (
    "truncated",
    "empty",
    "no_value",
    "json_null",
    "json_number",
    "json_array",
    "deeply_nested",
    "plain_text",
    "utf16",
    "invalid_utf8",
    "missing_field",
    "missing_time",
    "null_field",
    "text_for_number",
    "list_for_field",
    "not_a_number",
    "beyond_double",
    "future",
    "megabyte_string",
    "duplicate_keys",
)


def malformed_records(seed: int, n: int, record: Mapping[str, Any], event_time: str) -> Iterator[Malformed]:
    """Yields n malformed records, the kinds in turn.

    Args:
        seed: Same seed, same records.
        n: How many.
        record: A good record of the event type, field name to value.
        event_time: Its event time field.
    """
    rng = np.random.default_rng(seed)
    for at in range(n):
        kind = KINDS[at % len(KINDS)]
        yield Malformed(kind, _spoil(kind, rng, dict(record), event_time))


def ancient_record(record: Mapping[str, Any], event_time: str) -> bytes:
    """A well-formed record of 1970; it is refused only on a partition that has newer ones."""
    return json.dumps({**record, event_time: 1}).encode()


def _spoil(kind: str, rng: np.random.Generator, record: dict[str, Any], event_time: str) -> bytes | None:
    good = json.dumps(record).encode()
    others = [name for name in record if name != event_time]
    field = others[int(rng.integers(len(others)))] if others else event_time
    match kind:
        case "no_value":
            return None
        case "truncated":
            return good[: int(rng.integers(1, len(good)))]
        case "utf16":
            return good.decode().encode("utf-16")
        case "invalid_utf8":
            return b'{"' + field.encode() + b'": "\xff\xfe\x80", ' + good[1:]
        case "missing_field":
            return json.dumps({name: value for name, value in record.items() if name != field}).encode()
        case "missing_time":
            return json.dumps({name: value for name, value in record.items() if name != event_time}).encode()
        case "duplicate_keys":
            return good[:-1] + b', "' + field.encode() + b'": null}'
        case "not_a_number" | "beyond_double":
            literal = b"NaN" if kind == "not_a_number" else b"1" * 400
            return good[:-1] + b', "' + event_time.encode() + b'": ' + literal + b"}"
    whole = {
        "empty": b"",
        "json_null": b"null",
        "json_number": str(int(rng.integers(10**9))).encode(),
        "json_array": b"[" + good + b"," + good + b"]",
        "deeply_nested": b"[" * 20_000 + b"]" * 20_000,
        "plain_text": b"not json " + rng.bytes(8).hex().encode(),
    }
    if kind in whole:
        return whole[kind]
    changes: dict[str, tuple[str, Any]] = {
        "null_field": (field, None),
        "text_for_number": (event_time, "yesterday"),
        "list_for_field": (field, [[1], [2]]),
        "future": (event_time, FAR_FUTURE_MS),
        "megabyte_string": (event_time, "x" * MEGABYTE),
    }
    name, value = changes[kind]
    return json.dumps({**record, name: value}).encode()
