"""How late each consumer is, measured from outside: one that hangs cannot say so itself."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import msgspec
import numpy as np
from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from tailrace.backends.kafka import admin, group_reader, partitions_of
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.errors import BrokerUnavailable
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.subscriptions import subscriptions

ANSWER_S = 5.0
At = tuple[str, int]


class Lag(msgspec.Struct, frozen=True):
    """How far a consumer is behind.

    Attributes:
        records: Offsets between what it has committed and the end, transaction markers included; NaN while unknown.
        seconds: Age of the oldest record that it has not committed, by its Kafka timestamp; 0 when there is none,
            NaN when the broker did not hand it out in time.
    """

    records: float
    seconds: float


class LagProbe:
    """Asks the broker where consumer groups stand and where topics end. One thread at a time.

    The trainer commits a request when it has answered it, so that a training under way counts as lag.

    Args:
        settings: Address of the broker.
        use_case: Whose groups to watch.
    """

    def __init__(self, settings: Settings, use_case: UseCase) -> None:
        self._reads = subscriptions(use_case)
        self._admin = admin(settings)
        group = Topics(use_case.name).group
        # Of each partition that is behind, one record is read.
        sparing = {"queued.min.messages": 1, "fetch.message.max.bytes": 65_536}
        self._readers = {name: group_reader(settings, group(name), **sparing) for name in self._reads}
        self._partitions: dict[str, list[int]] = {}
        self._ends: dict[At, int] = {}
        self._produced: list[tuple[int, int]] = []

    def close(self) -> None:
        """Lets go of the broker."""
        for reader in self._readers.values():
            reader.close()

    def measure(self) -> dict[str, Lag]:
        """Lag of each consumer; one that has committed nothing yet is behind by everything there is.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        try:
            self._ends = self._end_offsets()
            lags = {name: lag_of(reader, self._ends_of(name)) for name, reader in self._readers.items()}
        except KafkaException as error:
            raise BrokerUnavailable(f"the broker does not say where consumers stand: {error}") from error
        return by_service(lags)

    def events_per_s(self, now_ms: int, span_ms: int = 10_000) -> float | None:
        """Events produced per second over the last seconds, as of the last `measure`; None at first."""
        events = sum(end for (topic, _), end in self._ends.items() if topic == self._reads["features"][0])
        self._produced = [(at, total) for at, total in self._produced if at >= now_ms - span_ms]
        self._produced.append((now_ms, events))
        (then_ms, then), took_ms = self._produced[0], now_ms - self._produced[0][0]
        return max(1_000 * (events - then) / took_ms, 0.0) if took_ms > 0 and then_ms < now_ms else None

    def _ends_of(self, consumer: str) -> dict[At, int]:
        return {at: end for at, end in self._ends.items() if at[0] in self._reads[consumer]}

    def _end_offsets(self) -> dict[At, int]:
        for topic in sorted({name for names in self._reads.values() for name in names} - self._partitions.keys()):
            self._partitions[topic] = partitions_of(self._admin, topic)
        asked = [TopicPartition(name, number) for name, numbers in self._partitions.items() for number in numbers]
        answers = self._admin.list_offsets(
            dict.fromkeys(asked, OffsetSpec.latest()),
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=ANSWER_S,
        )
        return {(at.topic, at.partition): answer.result().offset for at, answer in answers.items()}


def by_service(lags: Mapping[str, Lag]) -> dict[str, Lag]:
    """Lags of services, of which one may have several groups: it is as late as the latest of them."""
    found: dict[str, Lag] = {}
    for name, lag in lags.items():
        service = name.partition("-")[0]
        known = found.get(service, Lag(0.0, 0.0))
        # A NaN in either is unknown in both.
        found[service] = Lag(known.records + lag.records, float(np.maximum(known.seconds, lag.seconds)))
    return found


def lag_of(reader: Consumer, ends: Mapping[At, int]) -> Lag:
    """Lag of the group that a reader belongs to; blocks for some seconds at most.

    Args:
        reader: Made by `kafka.group_reader`.
        ends: End offsets of the partitions that the group consumes.

    Raises:
        KafkaException: the broker does not say.
    """
    asked = [TopicPartition(topic, number) for topic, number in ends]
    # Where a group has committed nothing, it begins at the beginning.
    stands = {(at.topic, at.partition): max(at.offset, 0) for at in reader.committed(asked, timeout=ANSWER_S)}
    behind = {at: offset for at, offset in stands.items() if ends[at] > offset}
    records = sum(ends[at] - offset for at, offset in behind.items())
    return Lag(records, _oldest_age_s(reader, behind) if behind else 0.0)


def _oldest_age_s(reader: Consumer, behind: Mapping[At, int]) -> float:
    """Age in seconds of the oldest of the records at the given offsets; 0 where only transaction markers are left."""
    waiting = set(behind)
    oldest_ms: int | None = None
    reader.assign([TopicPartition(*at, offset) for at, offset in behind.items()])
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
    return max(time.time() - oldest_ms / 1_000, 0.0)
