"""Reference: a hand-written confluent loop for the twelve features, with changelog and output.

Decodes by the batch, keeps a dict of windows by card, writes the state of every changed card to a changelog
and commits once a second. It sees a replayed event twice and knows no late events, no dead letters, no online store.

    python windows_hand.py --bootstrap H:P --source T --sink T --events N
"""

from __future__ import annotations

import time

import msgspec
from arguments import parsed
from confluent_kafka import Consumer, Producer
from sliding import Windows

COMMIT_S = 1.0


class Payment(msgspec.Struct, gc=False):
    """What is needed of an event."""

    payment_id: str
    card: str
    amount: float
    at_ms: int


given = parsed()
consumer = Consumer(
    {
        "bootstrap.servers": given.bootstrap,
        "group.id": given.sink,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "queued.min.messages": 100_000,
        "fetch.message.max.bytes": 3_000_000,
        "log_level": 3,
    }
)
producer = Producer(
    {
        "bootstrap.servers": given.bootstrap,
        "enable.idempotence": True,
        "linger.ms": 5,
        "compression.type": "lz4",
        "queue.buffering.max.messages": 1_000_000,
        "log_level": 3,
    }
)
decode = msgspec.json.Decoder(list[Payment]).decode
encode = msgspec.json.Encoder().encode
pack = msgspec.msgpack.Encoder().encode
consumer.subscribe([given.source])
cards: dict[str, Windows] = {}
dirty: set[str] = set()
done, committed = 0, time.monotonic()
while done < given.events or dirty:
    records = [r for r in consumer.consume(4_096, timeout=0.02) if r.error() is None] if done < given.events else []
    if records:
        events = decode(b"[" + b",".join([r.value() for r in records]) + b"]")
        for record, event in zip(records, events, strict=True):
            card = event.card
            windows = cards.get(card)
            if windows is None:
                windows = cards[card] = Windows()
            row = windows.add(event.at_ms, event.amount)
            dirty.add(card)
            producer.produce(given.sink, encode((event.payment_id, card, event.at_ms, row)), card, record.partition())
        producer.poll(0)
        done += len(records)
    if dirty and (time.monotonic() - committed > COMMIT_S or done >= given.events):
        for card in dirty:
            producer.produce(f"{given.sink}.changelog", pack(list(cards[card].queues[-1])), card)
        producer.flush()
        consumer.commit(asynchronous=False)
        dirty.clear()
        committed = time.monotonic()
consumer.close()
