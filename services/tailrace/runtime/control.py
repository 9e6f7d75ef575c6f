"""Following the routing table that `rollout` writes to CONTROL."""

from __future__ import annotations

from confluent_kafka import TopicPartition

from tailrace.backends.codec import decode
from tailrace.backends.kafka import consumer, read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.records import RoutingTable
from tailrace.contracts.topics import READERS, Topics


def newest_table(settings: Settings, topics: Topics) -> RoutingTable | None:
    """The routing table in force, CONTROL read to its end; None when nothing was ever decided."""
    tables = [decode(RoutingTable, m.value) for m in read_topic(settings, topics.control) if m.value is not None]
    return max(tables, key=lambda table: table.epoch, default=None)


class ControlFollower:
    """Reads CONTROL beside a service's own loop, without a consumer group. Not thread-safe."""

    def __init__(self, settings: Settings, topics: Topics) -> None:
        self._settings = settings
        self._topic = topics.control
        self._newest: RoutingTable | None = None
        self._next_offset = 0
        self._consumer = consumer(settings, READERS, **{"group.protocol": "classic", "group.instance.id": ""})
        self._assigned = False

    def catch_up(self) -> RoutingTable | None:
        """Reads to the end of CONTROL; blocks until it is there. None when nothing was ever decided."""
        for message in read_topic(self._settings, self._topic):
            self._next_offset = message.offset + 1
            if message.value is not None:
                self._take(message.value)
        return self._newest

    def poll(self) -> RoutingTable | None:
        """The newest routing table if a newer one came since the last call; never waits."""
        if not self._assigned:
            self._consumer.assign([TopicPartition(self._topic, 0, self._next_offset)])
            self._assigned = True
        before = self._newest
        while (record := self._consumer.poll(0)) is not None:
            value = record.value()
            # The client tells of every end it has come to, and newer tables may wait behind one.
            if record.error() is None and value is not None:
                self._take(value)
        return self._newest if self._newest is not before else None

    def close(self) -> None:
        """Gives the connection back."""
        self._consumer.close()

    def _take(self, value: bytes) -> None:
        table = decode(RoutingTable, value)
        if self._newest is None or table.epoch > self._newest.epoch:
            self._newest = table
