"""Durations as people write them: "250ms", "10s", "5m", "1h", "7d"."""

from __future__ import annotations

import re

UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PATTERN = re.compile(r"(\d+)\s*(ms|s|m|h|d)")


def milliseconds(text: str) -> int:
    """Reads a duration.

    Returns:
        Milliseconds, >= 0.

    Raises:
        ValueError: the text is no duration; the message shows the accepted form.

    Example:
        >>> milliseconds("10m")
        600000
    """
    found = _PATTERN.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a duration; write a whole number and a unit, such as '250ms', '10m', '7d'")
    return int(found.group(1)) * UNIT_MS[found.group(2)]


def duration(span_ms: int) -> str:
    """Writes a duration in the largest unit that holds it whole; `milliseconds` reads it back.

    Example:
        >>> duration(604_800_000)
        '7d'
    """
    unit = next(name for name, length_ms in reversed(UNIT_MS.items()) if span_ms % length_ms == 0)
    return f"{span_ms // UNIT_MS[unit]}{unit}"
