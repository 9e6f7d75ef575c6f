"""Spans of event time, as records name them."""

from __future__ import annotations

import msgspec


class EventSpan(msgspec.Struct, frozen=True, kw_only=True):
    """Events from `since_ms` until just before `until_ms`, epoch milliseconds."""

    since_ms: int
    until_ms: int
