"""A topic that is read until it is settled: what is committed elsewhere already must be found in it."""

from __future__ import annotations

import threading
import uuid

from confluent_kafka.admin import NewTopic

from tailrace.backends.kafka import admin, producer, read_topic
from tailrace.backends.settings import Settings


def test_a_settled_read_waits_for_the_transactions_that_are_open(settings: Settings) -> None:
    topic = f"settled.{uuid.uuid4().hex[:8]}"
    client = admin(settings)
    client.create_topics([NewTopic(topic, 2, 1)], operation_timeout=30)[topic].result(30)
    writer = producer(settings, **{"transactional.id": topic})
    writer.init_transactions(30)
    writer.begin_transaction()
    writer.produce(topic, b"value", b"key", 1)
    writer.flush(30)
    assert list(read_topic(settings, topic)) == []
    assert list(read_topic(settings, topic, partitions=[0], settled=True)) == []
    found: list[bytes | None] = []
    reader = threading.Thread(target=lambda: found.extend(m.value for m in read_topic(settings, topic, settled=True)))
    reader.start()
    reader.join(1.0)  # a read that does not wait has ended by then, with nothing
    writer.commit_transaction(30)
    reader.join(30)
    assert found == [b"value"]
