"""The client between Kafka and a model server: reads FEATURES, asks for the score of each row, many at a time, writes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from confluent_kafka import Consumer, Producer

IN_FLIGHT = 256
"""Open requests: more than any of the servers puts into a batch."""


async def bridge(bootstrap: str, source: str, sink: str, ask: Callable[[list[float]], Awaitable[float]]) -> None:
    """Asks for each record until the process is ended."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": sink, "auto.offset.reset": "earliest", "log_level": 3}
    )
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "log_level": 3})
    consumer.subscribe([source])
    places = asyncio.Semaphore(IN_FLIGHT)
    tasks: set[asyncio.Task] = set()

    async def answer(record: object) -> None:
        event = json.loads(record.value())
        score = await ask(event["values"])
        producer.produce(sink, json.dumps({"event_id": event["event_id"], "score": score}), record.key())
        places.release()

    def ended(task: asyncio.Task) -> None:
        tasks.discard(task)
        task.result()

    while True:
        for record in consumer.consume(IN_FLIGHT, timeout=0):
            if record.error() is None:
                await places.acquire()
                task = asyncio.create_task(answer(record))
                tasks.add(task)
                task.add_done_callback(ended)
        producer.poll(0)
        await asyncio.sleep(0)
