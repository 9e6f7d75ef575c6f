"""Twelve windowed features by hand, on confluent-kafka: `python -m load_tests.hand_written_windows <use case> <topic>`.

What a skilled developer writes for this one job: typed decoding, a dictionary of states by card, running
counts and sums with one pointer per span, output to the partition of the event, and once a second the
state of every changed card to the changelog, then a flush, then the offsets. It expects events in order,
gives up on a bad record, and keeps nothing that would tell a replayed event from a new one.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

import msgspec
from confluent_kafka import Consumer, TopicPartition

from load_tests.events import Payment
from load_tests.peers.sliding import Card
from load_tests.streams import PARTITIONS
from tailrace.backends.kafka import consumer, producer
from tailrace.backends.settings import load_settings
from tailrace.contracts.topics import Topics

COMMIT_EVERY_S = 1.0


def main() -> None:
    settings, topics, events = load_settings(), Topics(sys.argv[1]), sys.argv[2]
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    source = consumer(settings, topics.group("hand"))
    sink = producer(settings)
    source.subscribe([events])
    cards: dict[str, Card] = {}
    dirty: dict[str, int] = {}
    positions = [0] * PARTITIONS
    decode, encode = msgspec.json.Decoder(Payment).decode, msgspec.json.Encoder().encode
    committed = time.monotonic()
    while not asked:
        for record in source.consume(2_000, 0.05):
            if record.error() is not None:
                continue
            event = decode(record.value())
            card = cards.get(event.card)
            if card is None:
                card = cards[event.card] = Card()
            row = {
                "event_id": event.payment_id,
                "event_time_ms": event.at_ms,
                "key": event.card,
                "values": card.add(event.at_ms, event.amount),
                "produced_at_ms": record.timestamp()[1],
            }
            partition = record.partition()
            dirty[event.card] = partition
            positions[partition] = record.offset() + 1
            _produce(sink, topics.features, encode(row), record.key(), partition)
        sink.poll(0)
        if dirty and time.monotonic() - committed > COMMIT_EVERY_S:
            _commit(source, sink, topics.features_changelog, events, cards, dirty, positions)
            committed = time.monotonic()
    source.close()


def _commit(
    source: Consumer,
    sink: Any,
    changelog: str,
    events: str,
    cards: dict[str, Card],
    dirty: dict[str, int],
    positions: list[int],
) -> None:
    for name, partition in dirty.items():
        _produce(sink, changelog, cards[name].packed(), name.encode(), partition)
    dirty.clear()
    sink.flush()
    at = [TopicPartition(events, number, offset) for number, offset in enumerate(positions) if offset]
    source.commit(offsets=at, asynchronous=False)


def _produce(sink: Any, topic: str, value: bytes, key: bytes | None, partition: int) -> None:
    while True:
        try:
            sink.produce(topic, value, key, partition)
            return
        except BufferError:
            sink.poll(0.05)


if __name__ == "__main__":
    main()
