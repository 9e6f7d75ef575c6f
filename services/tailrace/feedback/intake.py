"""Records as feedback takes them in: by topic, outcomes checked, and how far event time has come on their partitions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from operator import attrgetter

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.backends.codec import decode, encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.topics import Topics
from tailrace.core.durations import milliseconds
from tailrace.core.joins import Reports
from tailrace.core.watermarks import PartitionTime, Watermarks, watermark_of
from tailrace.feedback.outcomes import OutcomeReader, reports_of
from tailrace.runtime.dead_letters import Quarantine, dead_letter
from tailrace.usecase.declaration import UseCase

_TOPIC_OF, _VALUE_OF = attrgetter("topic"), attrgetter("value")


class Position(msgspec.Struct, frozen=True):
    """Commit metadata of a partition: the epoch of the routing table that is followed, and how far its time has come.

    With the time of every partition a restart goes on as if there had been none: one that is read later than
    the others holds stream time back, and no window closes before the outcomes in it were read.
    """

    epoch: int = 0
    time: PartitionTime = PartitionTime()


class Intake:
    """Takes in the records of some partitions.

    Args:
        use_case: The use case.
        metrics: Prometheus handles.

    Attributes:
        committed: What is committed of each partition.
    """

    def __init__(self, use_case: UseCase, metrics: Metrics) -> None:
        self._use_case = use_case
        self._topics = Topics(use_case.name)
        self._metrics = metrics
        self._readers = {topic.name: OutcomeReader(topic) for topic in use_case.outcome_topics}
        self._quarantine = Quarantine()
        self._waiting: set[tuple[str, int]] = set()
        self.committed: dict[tuple[str, int], Position] = {}
        self._marks = self._watermarks()

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Takes over partitions; `restart` has to follow."""
        for at in partitions:
            known = decode(Position, at.metadata.encode()) if at.metadata else Position()
            self.committed[at.topic, at.partition] = known
            self._waiting.discard((at.topic, at.partition))
            if at.waiting:
                self._waiting.add((at.topic, at.partition))

    def restart(self, watermark_ms: int) -> None:
        """Goes on from a stream time, epoch milliseconds; -1 for none."""
        self._marks = self._watermarks()
        self._marks.restore(watermark_ms if watermark_ms >= 0 else None)
        for (topic, partition), position in self.committed.items():
            time = position.time
            # Stream time follows shadows only where their records state it.
            follows = topic == self._topics.predictions or topic in self._readers
            if time.stated or (follows and (time.watermark_ms is not None or (topic, partition) in self._waiting)):
                self._marks.assign(topic, partition, time)
        for reader in self._readers.values():
            reader.forget()

    def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Forgets partitions."""
        for at in partitions:
            self.committed.pop(at, None)
            self._waiting.discard(at)
            self._marks.revoke(*at)

    def ended(self, partitions: Collection[tuple[str, int]]) -> None:
        """Takes note of which partitions are at their end, all others being not."""
        self._marks.ended(partitions)

    def metadata(self, topic: str, partition: int, epoch: int = 0) -> str:
        """A `Position` as JSON."""
        position = self.committed[topic, partition] = Position(epoch, self._marks.known(topic, partition))
        return encode(position).decode()

    def by_topic(self, batch: Sequence[Message], now_ms: int) -> dict[str, list[Message]]:  # hot path
        """Records in order; those that state a watermark are taken note of and left out."""
        found: dict[str, list[Message]] = {}
        for topic, run in groupby(batch, _TOPIC_OF):
            found.setdefault(topic, []).extend(run)
        for topic, messages in found.items():
            if None in map(_VALUE_OF, messages):
                found[topic] = [message for message in messages if not self._is_watermark(message, now_ms)]
        return found

    def observe_times(self, messages: Sequence[Message], times_ms: NDArray[np.int64], now_ms: int) -> None:
        """Takes note of the event times of records of one topic, int64 (n,)."""
        partitions = np.array([message.partition for message in messages])
        for partition in np.unique(partitions).tolist():
            newest_ms = int(times_ms[partitions == partition].max())
            self._marks.observe(messages[0].topic, partition, newest_ms, now_ms)

    def outcomes(
        self, by_topic: dict[str, list[Message]], now_ms: int
    ) -> tuple[list[tuple[int, Reports]], list[Output]]:
        """What outcomes that can be used say of each label, by its place; and dead letters of the others."""
        found: list[tuple[int, Reports]] = []
        letters: list[Output] = []
        for name, reader in self._readers.items():
            messages = by_topic.get(name, [])
            if not messages:
                continue
            records, carriers, times_ms, bad = reader.take(messages, now_ms)
            if records:
                self.observe_times(carriers, times_ms, now_ms)
                labels = enumerate(self._use_case.labels)
                found += [(at, reports_of(label, records)) for at, label in labels if label.topic.name == name]
            self._quarantine.observe(len(records), len(bad))
            for _, error in bad:
                self._metrics.dead_letters.labels(error.reason).inc()
            letters += [dead_letter(self._topics, "feedback", message, error, now_ms) for message, error in bad]
        return found, letters

    def watermark_ms(self, now_ms: int) -> int | None:
        """Stream time in epoch milliseconds; None before it begins."""
        return self._marks.current(now_ms)

    def idle(self, now_ms: int) -> bool:
        """Whether no partition holds stream time back."""
        return self._marks.idle(now_ms)

    def _is_watermark(self, message: Message, now_ms: int) -> bool:
        mark = watermark_of(message.value, message.headers)
        if mark is not None:
            self._marks.punctuate(message.topic, message.partition, mark, now_ms)
        return mark is not None

    def _watermarks(self) -> Watermarks:
        topics, lateness = self._topics, milliseconds(self._use_case.requests.lateness)
        outcomes = {topic.name: milliseconds(topic.lateness) for topic in self._use_case.outcome_topics}
        return Watermarks({topics.predictions: lateness, topics.shadow: lateness, **outcomes})
