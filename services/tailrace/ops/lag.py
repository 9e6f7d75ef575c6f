"""How late each consumer is, measured from outside: one that hangs cannot say so itself."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tailrace.backends.kafka import admin, end_offsets, group_reader, partitions_of
from tailrace.backends.settings import Settings
from tailrace.contracts.metrics import METRICS
from tailrace.contracts.topics import AUDIT, Topics
from tailrace.errors import BrokerUnavailable
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase

EVERY_S = 2.0
ANSWER_S = 5.0
CONSUMERS = METRICS["lag_seconds"].labels[0].values
At = tuple[str, int]


class LagWatch(threading.Thread):
    """Exports the lag of every consumer of a use case, in seconds and in records.

    How a lag in seconds is found:
      1. the ends of all topics of the use case, as a reader of committed records sees them;
      2. what each group has committed; partitions it never committed for are not its own;
      3. from every partition that is behind, the one record at the committed offset;
      4. the age of the oldest such record, by its Kafka timestamp. Nothing but transaction markers: 0.
    The trainer commits a request when it has answered it, so that a training under way counts as lag.

    Args:
        settings: Address of the broker.
        use_case: Whose consumers to watch.
        lifecycle: Holds the gauges, and says when to stop.
    """

    def __init__(self, settings: Settings, use_case: UseCase, lifecycle: Lifecycle) -> None:
        super().__init__(name="lag", daemon=True)
        self._settings = settings
        self._lifecycle = lifecycle
        self._topics = Topics(use_case.name)
        self._names = [
            use_case.requests.name,
            use_case.label.topic.name,
            *(spec.name for spec in self._topics.owned() if spec.name != AUDIT),
        ]

    def run(self) -> None:
        """Measures until the service stops; what cannot be measured is NaN."""
        metrics = self._lifecycle.metrics
        stopping = self._lifecycle.stopping
        while not stopping.is_set():
            try:
                self._measure_until_stopped()
            except (BrokerUnavailable, KafkaException) as error:
                for consumer in CONSUMERS:
                    metrics.lag_seconds.labels(consumer).set(math.nan)
                    metrics.lag_records.labels(consumer).set(math.nan)
                self._lifecycle.log.warning("lag_unknown", error=str(error))
                stopping.wait(EVERY_S)

    def _measure_until_stopped(self) -> None:
        metrics = self._lifecycle.metrics
        client = admin(self._settings)
        partitions = {name: partitions_of(client, name) for name in self._names}
        readers = {consumer: self._reader(consumer) for consumer in CONSUMERS}
        try:
            while not self._lifecycle.stopping.is_set():
                ends = {
                    (name, number): end
                    for name, numbers in partitions.items()
                    for number, end in end_offsets(client, name, numbers).items()
                }
                for consumer, reader in readers.items():
                    records, seconds = lag_of(reader, ends)
                    metrics.lag_records.labels(consumer).set(records)
                    metrics.lag_seconds.labels(consumer).set(seconds)
                self._lifecycle.stopping.wait(EVERY_S)
        finally:
            for reader in readers.values():
                reader.close()

    def _reader(self, consumer: str) -> Consumer:
        group = self._topics.group(consumer)
        return group_reader(self._settings, group, **{"queued.min.messages": 1, "fetch.message.max.bytes": 65_536})


def lag_of(reader: Consumer, ends: Mapping[At, int]) -> tuple[float, float]:
    """Lag of the group that a reader belongs to.

    Args:
        reader: Made by `kafka.group_reader`; blocks for some seconds at most.
        ends: End offsets of the partitions to look at.

    Returns:
        Records and seconds; both NaN for a group that has committed nothing yet.

    Raises:
        KafkaException: the broker does not say.
    """
    asked = [TopicPartition(topic, number) for topic, number in ends]
    committed = [at for at in reader.committed(asked, timeout=ANSWER_S) if at.offset >= 0]
    if not committed:
        return math.nan, math.nan
    behind = [at for at in committed if ends[at.topic, at.partition] > at.offset]
    records = sum(ends[at.topic, at.partition] - at.offset for at in behind)
    return float(records), _oldest_age_s(reader, behind) if behind else 0.0


def _oldest_age_s(reader: Consumer, behind: list[TopicPartition]) -> float:
    """Age in seconds of the oldest record at or behind the given offsets; 0 where only markers are left, NaN if the broker does not say."""
    waiting = {(at.topic, at.partition) for at in behind}
    oldest_ms: int | None = None
    reader.assign([TopicPartition(at.topic, at.partition, at.offset) for at in behind])
    deadline = time.monotonic() + ANSWER_S
    try:
        while waiting and time.monotonic() < deadline:
            record = reader.poll(0.1)
            if record is None:
                continue
            at = (record.topic(), record.partition())
            if record.error() is None and at in waiting:
                stamp_ms = record.timestamp()[1]
                oldest_ms = stamp_ms if oldest_ms is None else min(oldest_ms, stamp_ms)
            # An error is the end of the partition (nothing but markers), or speaks of a fetch to come.
            waiting.discard(at)
    finally:
        reader.unassign()
    if oldest_ms is None:
        return math.nan if waiting else 0.0
    return max(time.time() - oldest_ms / 1000, 0.0)
