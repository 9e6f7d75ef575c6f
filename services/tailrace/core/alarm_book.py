"""Alarms that stand: raised once, resolved once."""

from __future__ import annotations

from typing import Any

import msgspec

from tailrace.contracts.quality import Alarm


class AlarmBook:
    """Alarms of a use case by what they speak of.

    Args:
        use_case: Whose.
        standing: Where they are kept; written.
    """

    def __init__(self, use_case: str, standing: dict[str, Alarm]) -> None:
        self._use_case, self.standing = use_case, standing

    def level(self, active: bool, now_ms: int, **fields: Any) -> list[Alarm]:
        """Raises an alarm that does not stand, resolves one that does; nothing while nothing changes.

        Args:
            active: Whether there is reason for it.
            now_ms: Epoch milliseconds of stream time.
            fields: The other fields of `Alarm`.
        """
        name = _name(fields["detector"], fields["subject"], fields.get("slice", ""))
        known = self.standing.get(name)
        if active and known is None:
            alarm = Alarm(use_case=self._use_case, raised_at_ms=now_ms, **fields)
            self.standing[name] = alarm
            return [alarm]
        if not active and known is not None:
            del self.standing[name]
            now = {field: fields[field] for field in ("value", "detail", "size") if field in fields}
            return [msgspec.structs.replace(known, **now, raised_at_ms=now_ms, resolved=True)]
        return []

    def again(self, now_ms: int, **fields: Any) -> list[Alarm]:
        """Raises an alarm whether one of its name stands or not: its detector began anew and alarms once more."""
        self.standing.pop(_name(fields["detector"], fields["subject"], fields.get("slice", "")), None)
        return self.level(True, now_ms, **fields)


def _name(detector: str, subject: str, of_slice: str) -> str:
    return f"{detector}|{subject}|{of_slice}" if of_slice else f"{detector}|{subject}"
