"""Records of an outcomes topic, decoded and checked, and what they say of a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.backends.codec import EventDecoder
from tailrace.backends.ports import Message
from tailrace.core.durations import milliseconds
from tailrace.core.joins import Reports
from tailrace.core.trust import tier_of
from tailrace.core.watermarks import EventTimeBounds
from tailrace.errors import BadRecord
from tailrace.usecase.sources import Label, Topic


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


def reports_of(label: Label, records: Sequence[Any]) -> Reports:  # hot path
    """What outcome records say of a label, by the fields that it names; records that say nothing are left out."""
    values = [getattr(record, label.value) for record in records]
    retract, left = (_flags(field, records) for field in (label.retract, label.left))
    if None in values:
        says = [value is not None or retract[at] or left[at] for at, value in enumerate(values)]
        if not all(says):
            return reports_of(label, [record for record, said in zip(records, says, strict=True) if said])
        values = [0.0 if value is None else value for value in values]
    time_ms = np.array([getattr(record, label.topic.event_time) for record in records], dtype=np.int64)
    revision = time_ms
    if label.revision:
        revision = np.array([int(getattr(record, label.revision)) for record in records], dtype=np.int64)
    names = [str(getattr(record, label.on)) for record in records]
    reports = Reports(names, revision, retract, np.array(values, dtype=np.float64), time_ms)
    if label.source is not None:
        sources = [str(getattr(record, label.source)) for record in records]
        trust = label.trust or {}
        tiers = {source: tier_of(trust, source) for source in set(sources)}
        reports = reports._replace(
            sources=sources, tiers=np.array([tiers[source] for source in sources], dtype=np.int8)
        )
    if label.reduce is None:
        return reports
    ids = _outcome_ids(label, records, time_ms)
    # That nothing more can be seen of an event is no revision of what was seen.
    ids = [f"left {name}" if gone else name for name, gone in zip(ids, left.tolist(), strict=True)]
    return reports._replace(outcome_ids=ids, left=left)


def _flags(field: str | None, records: Sequence[Any]) -> NDArray[np.bool_]:
    if field is None:
        return np.zeros(len(records), np.bool_)
    return np.array([bool(getattr(record, field)) for record in records], dtype=np.bool_)


def _outcome_ids(label: Label, records: Sequence[Any], time_ms: NDArray[np.int64]) -> list[str]:
    if label.outcome_id is not None:
        return [str(getattr(record, label.outcome_id)) for record in records]
    # What befalls an entity at two times are two outcomes.
    return list(map(str, time_ms.tolist())) if label.entity is not None else [""] * len(records)
