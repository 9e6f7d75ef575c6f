"""What an operator sees, folded from the topics of a use case."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import msgspec

from tailrace.backends.codec import decode
from tailrace.backends.ports import Message
from tailrace.contracts.records import (
    Alarm,
    DeadLetter,
    Quality,
    RetrainingRecord,
    RoutingTable,
)
from tailrace.contracts.topics import Topics
from tailrace.runtime.dead_letters import dead_letter_of

KEPT = 200
"""Newest records of each kind that are shown; the topics keep the rest."""


class LoopView:
    """The state of the loop, as JSON-ready data. Not thread-safe: one thread applies and reads.

    Args:
        topics: Topics of the use case.
    """

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._routing: RoutingTable | None = None
        self._quality: dict[bytes, Quality] = {}
        self._alarms: deque[Alarm] = deque(maxlen=KEPT)
        self._retraining: deque[Any] = deque(maxlen=KEPT)
        self._dead_letters: deque[DeadLetter] = deque(maxlen=KEPT)
        self._dead_letter_reasons: Counter[str] = Counter()
        self._watermark_ms: int | None = None

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """Topics to feed to `apply`."""
        t = self._topics
        return (t.control, t.quality, t.alarms, t.retraining, t.dead_letters)

    def apply(self, message: Message) -> None:
        """Takes one record of a subscribed topic."""
        t = self._topics
        if message.topic == t.dead_letters:
            self._take_dead_letter(message)
        elif message.value is None:
            return
        elif message.topic == t.control:
            self._routing = decode(RoutingTable, message.value)
        elif message.topic == t.quality:
            record = decode(Quality, message.value)
            self._quality[message.key or b""] = record
            self._watermark_ms = max(self._watermark_ms or 0, record.watermark_ms)
            if len(self._quality) > 20 * KEPT:
                del self._quality[next(iter(self._quality))]
        elif message.topic == t.alarms:
            self._alarms.append(decode(Alarm, message.value))
        elif message.topic == t.retraining:
            self._retraining.append(decode(RetrainingRecord, message.value))  # type: ignore[arg-type]  # a union

    def state(self) -> dict[str, Any]:
        """Everything that is shown. Times are epoch milliseconds."""
        whole = [record for record in self._quality.values() if record.slice == ""]
        newest = sorted(whole, key=lambda record: (record.window_start_ms, record.variant))[-KEPT:]
        return {
            "use_case": self._topics.use_case,
            "watermark_ms": self._watermark_ms,
            "routing": msgspec.to_builtins(self._routing),
            "quality": [_summary(record) for record in newest],
            "alarms": msgspec.to_builtins(list(self._alarms)),
            "retraining": msgspec.to_builtins(list(self._retraining)),
            "dead_letters": {
                "by_reason": dict(self._dead_letter_reasons),
                "newest": msgspec.to_builtins(list(self._dead_letters)),
            },
        }

    def _take_dead_letter(self, message: Message) -> None:
        letter = dead_letter_of(message.headers)
        if letter is not None:
            self._dead_letters.append(letter)
            self._dead_letter_reasons[letter.reason] += 1


def _summary(record: Quality) -> dict[str, Any]:
    """A quality record without its histogram, which no person reads."""
    shown = msgspec.to_builtins(record)
    for name in ("bins", "n", "positives"):
        del shown[name]
    return dict(shown)
