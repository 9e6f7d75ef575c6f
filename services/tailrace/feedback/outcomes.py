"""Records of an outcomes topic, decoded and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.backends.codec import EventDecoder
from tailrace.backends.ports import Message
from tailrace.core.durations import milliseconds
from tailrace.core.watermarks import EventTimeBounds
from tailrace.errors import BadRecord
from tailrace.usecase.sources import Topic


class Taken(NamedTuple):
    """Outcomes that can be used, with the messages that carried them and their event times, int64 (n,); and the rest."""

    records: list[Any]
    carriers: list[Message]
    times_ms: NDArray[np.int64]
    bad: list[tuple[Message, BadRecord]]


class OutcomeReader:
    """Reads one outcomes topic.

    Args:
        topic: The topic.
    """

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self._decoder = EventDecoder(topic)
        self.forget()

    def forget(self) -> None:
        """Forgets how far event time had come on the partitions."""
        self._bounds = EventTimeBounds(
            max_ahead_ms=milliseconds(self.topic.max_ahead), max_behind_ms=milliseconds(self.topic.max_behind)
        )

    def take(self, messages: Sequence[Message], now_ms: int) -> Taken:  # hot path
        """Decodes messages; those that cannot be read, or whose event time cannot be believed, are bad."""
        records: list[Any] = self._decoder.decode([message.value for message in messages])
        self._check_times(messages, records, now_ms)
        good, carriers, bad = [], [], []
        for message, record in zip(messages, records, strict=True):
            if isinstance(record, BadRecord):
                bad.append((message, record))
            else:
                good.append(record)
                carriers.append(message)
        name = self.topic.event_time
        return Taken(good, carriers, np.array([getattr(record, name) for record in good], dtype=np.int64), bad)

    def _check_times(self, messages: Sequence[Message], records: list[Any], now_ms: int) -> None:
        """Replaces outcomes whose event time cannot be believed by their `BadRecord`."""
        name = self.topic.event_time
        places: dict[int, list[int]] = {}
        for place, (message, record) in enumerate(zip(messages, records, strict=True)):
            if not isinstance(record, BadRecord):
                places.setdefault(message.partition, []).append(place)
        for partition, of_partition in places.items():
            times_ms = np.array([getattr(records[place], name) for place in of_partition], dtype=np.int64)
            ahead, behind = self._bounds.check(partition, times_ms, now_ms)
            for at in np.flatnonzero(ahead).tolist():
                records[of_partition[at]] = BadRecord("future", f"{name} is ahead of the wall clock")
            for at in np.flatnonzero(behind).tolist():
                records[of_partition[at]] = BadRecord("too_old", f"{name} is far behind its partition")
