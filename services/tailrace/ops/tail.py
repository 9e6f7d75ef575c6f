"""New records of a topic as they come, for people who watch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import msgspec
from confluent_kafka import TopicPartition

from tailrace.backends.kafka import group_reader, partitions_of, to_message
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.runtime.dead_letters import dead_letter_of

CHANNELS = ("features", "predictions", "shadow", "labels", "quality", "drift", "alarms", "retraining", "control")
BATCH = 200
OFFSET_END = -1


def tail(
    settings: Settings, topics: Topics, channel: str, stopping: threading.Event
) -> Iterator[dict[str, Any] | None]:
    """Yields records of a channel that are committed after the call, and None while there are none.

    Args:
        settings: Address of the broker.
        topics: Topics of the use case.
        channel: One of `CHANNELS`.
        stopping: Ends the iteration once set.
    """
    reader = group_reader(settings, "tailrace.reader")
    try:
        topic = getattr(topics, channel)
        reader.assign([TopicPartition(topic, number, OFFSET_END) for number in partitions_of(reader, topic)])
        while not stopping.is_set():
            messages = [to_message(r) for r in reader.consume(BATCH, timeout=0.2) if r.error() is None]
            rows = [m for m in messages if m.value and dead_letter_of(m.headers) is None]
            for message in rows:
                yield msgspec.json.decode(message.value or b"")
            if not rows:
                yield None
    finally:
        reader.close()
