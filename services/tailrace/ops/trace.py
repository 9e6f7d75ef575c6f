"""One event followed from its id to its outcome, through the topics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, TopicPartition

from tailrace.backends.kafka import group_reader, partitions_of, to_message
from tailrace.backends.ports import Message
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.runtime.dead_letters import dead_letter_of
from tailrace.usecase.declaration import UseCase

PATIENCE_S = 20.0
"""Longest search through one topic; beyond it the answer says how far it came."""
BATCH = 10_000


def trace(settings: Settings, use_case: UseCase, event_id: str) -> dict[str, Any]:
    """Everything the topics know of an event.

    Topics have no index: they are searched for the id's bytes, so that this takes seconds on large ones.

    Returns:
        "event", "predictions", "labels", "outcomes" and "dead_letters" as their topics hold them, each with its
        position; "searched" counts the records looked at, and "complete" is False where patience ran out.
    """
    topics, id_field = Topics(use_case.name), use_case.plan.event_id
    judging = [label for label in use_case.labels if label.entity is None]
    search = _Search(settings, event_id)
    predictions = [
        found for topic in (topics.predictions, topics.shadow) for found in search.find(topic, "event_id", event_id)
    ]
    since_ms = min((found["produced_at_ms"] for found in predictions), default=0)
    return {
        "event_id": event_id,
        "event": next(iter(search.find(use_case.requests.name, id_field, event_id, since_ms)), None),
        "predictions": predictions,
        "outcomes": [
            found
            for topic, field in dict.fromkeys((label.topic.name, label.on) for label in judging)
            for found in search.find(topic, field, event_id)
        ],
        "labels": search.find(topics.labels, "event_id", event_id, since_ms),
        "dead_letters": search.dead_letters(topics.dead_letters),
        "searched": search.searched,
        "complete": search.complete,
    }


class _Search:
    def __init__(self, settings: Settings, event_id: str) -> None:
        self._settings = settings
        # As it stands in JSON, but for the quotation marks that an id which is a number lacks.
        self._needle = msgspec.json.encode(event_id).strip(b'"')
        self.searched = 0
        self.complete = True

    def find(self, topic: str, field: str, wanted: str, since_ms: int = 0) -> list[dict[str, Any]]:
        """Records of which a field is the wanted id, with their position, in order within each partition."""
        found = []
        for message in self._candidates(topic, since_ms):
            try:
                record = msgspec.json.decode(message.value or b"")
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if isinstance(record, dict) and str(record.get(field)) == wanted:
                position = {"topic": topic, "partition": message.partition, "offset": message.offset}
                found.append({**record, "position": position, "kafka_timestamp_ms": message.timestamp_ms})
        return found

    def dead_letters(self, topic: str) -> list[dict[str, Any]]:
        """Dead letters that mention the id."""
        letters = ((message, dead_letter_of(message.headers)) for message in self._candidates(topic, 0))
        return [
            {**msgspec.to_builtins(letter), "partition": message.partition, "offset": message.offset}
            for message, letter in letters
            if letter is not None
        ]

    def _candidates(self, topic: str, since_ms: int) -> Iterator[Message]:
        reader = group_reader(self._settings, "tailrace.reader")
        try:
            left = self._assign(reader, topic, since_ms)
            deadline = time.monotonic() + PATIENCE_S
            while left:
                if time.monotonic() > deadline:
                    self.complete = False
                    return
                for record in reader.consume(BATCH, timeout=0.05):
                    error = record.error()
                    if error is None:
                        self.searched += 1
                        if self._needle in (record.value() or b""):
                            yield to_message(record)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        left.discard(record.partition())
        finally:
            reader.close()

    def _assign(self, reader: Consumer, topic: str, since_ms: int) -> set[int]:
        numbers = partitions_of(reader, topic)
        starts = [TopicPartition(topic, number, since_ms) for number in numbers]
        if since_ms:
            # Offset -1, behind the end, is where nothing younger was found.
            starts = reader.offsets_for_times(starts, timeout=10)
        else:
            for start in starts:
                start.offset = 0
        reader.assign(starts)
        return set(numbers)
