"""What a running use case decides, followed live from its topics without a consumer group."""

from __future__ import annotations

from confluent_kafka import TopicPartition

from tailrace.backends.kafka import consumer
from tailrace.backends.settings import Settings
from tailrace.testing.decisions import DecisionLog


class Observer(DecisionLog):
    """Collects what a use case decides, in the order in which each topic was written.

    Args:
        settings: Address of the broker.
        use_case: Its name.
    """

    def __init__(self, settings: Settings, use_case: str) -> None:
        super().__init__(use_case)
        self._reader = consumer(
            settings,
            "tailrace.observer",
            **{"group.protocol": "classic", "group.instance.id": "", "enable.partition.eof": False},
        )
        self._reader.assign([TopicPartition(name, 0, 0) for name in self.topics])

    def poll(self, timeout_s: float = 0.0) -> None:
        """Takes in what has come; does not block longer than `timeout_s`."""
        for record in self._reader.consume(5_000, timeout=timeout_s):
            value = record.value()
            if record.error() is None and value is not None:
                self.take(str(record.topic()), value)

    def close(self) -> None:
        """Closes the connection."""
        self._reader.close()
