"""The join one writes by hand: a dict of predictions, a heap of time-outs, one record after the other.

Exactly-once like the service (a transaction every 50 ms), state in a compacted topic by key, log loss,
Brier score, accuracy and a histogram of scores per day and slice. No drift, no revisions, no shadows.
"""

from __future__ import annotations

import heapq
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from confluent_kafka import KafkaError, TopicPartition

from load_tests.predictions import LATENESS_MS, WINDOW_MS
from tailrace.backends.kafka import consumer, producer, read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics

if TYPE_CHECKING:
    from load_tests.scenarios.feedback import Progress

KEPT = (
    "prediction_id",
    "event_id",
    "key",
    "entities",
    "slices",
    "event_time_ms",
    "variant",
    "model_version",
    "score",
    "decision",
)


class NaiveJoin:
    """State and metrics of the hand-written join.

    Args:
        topics: Where to write.
        emit: Takes topic, key and value of a record to write.
    """

    def __init__(self, topics: Topics, emit: Any) -> None:
        self._topics = topics
        self._emit = emit
        self._marks: dict[tuple[str, int], int] = {}
        self._stated: set[tuple[str, int]] = set()
        self._watermark_ms = -1
        self._due: list[tuple[int, str]] = []
        self.open: dict[str, dict[str, Any]] = {}
        self.quality: dict[tuple[int, str], dict[str, Any]] = {}

    def restore(self, event_id: str, state: dict[str, Any]) -> None:
        """Takes back one event."""
        self.open[event_id] = state
        if "event_time_ms" in state and not state.get("closed"):
            heapq.heappush(self._due, (state["event_time_ms"] + WINDOW_MS + LATENESS_MS, event_id))

    def predict(self, partition: int, value: bytes) -> None:
        """Takes a prediction."""
        record = msgspec.json.decode(value)
        event_id = record["event_id"]
        state = {name: record[name] for name in KEPT}
        early = self.open.get(event_id)
        if early is not None and "event_time_ms" in early:
            return
        self.open[event_id] = state
        heapq.heappush(self._due, (record["event_time_ms"] + WINDOW_MS + LATENESS_MS, event_id))
        for window in self._windows(state):
            window["predictions"] += 1
        if early is not None:
            state["outcome"] = early["outcome"]
            self._label(state, 1.0, "provisional")
        self._store(event_id, state)
        self._seen("predictions", partition, record["event_time_ms"])

    def observe(self, partition: int, value: bytes) -> None:
        """Takes an outcome."""
        record = msgspec.json.decode(value)
        event_id = record["payment_id"]
        state = self.open.setdefault(event_id, {})
        state["outcome"] = record
        if "event_time_ms" in state:
            self._label(state, float(record["fraud"]), "provisional")
        self._store(event_id, state)
        self._seen("outcomes", partition, record["at_ms"])

    def state_watermark(self, source: str, partition: int, watermark_ms: int) -> None:
        """Takes a stated watermark."""
        self._stated.add((source, partition))
        self._marks[source, partition] = watermark_ms

    def advance(self, partitions: int) -> None:
        """Closes what is due."""
        if len(self._marks) < partitions:
            return
        self._watermark_ms = max(self._watermark_ms, min(self._marks.values()))
        while self._due and self._due[0][0] <= self._watermark_ms:
            _, event_id = heapq.heappop(self._due)
            state = self.open[event_id]
            label = float(state["outcome"]["fraud"]) if "outcome" in state else 0.0
            state["closed"] = True
            self._label(state, label, "final")
            self._count(state, label)
            self._store(event_id, state)

    def _seen(self, source: str, partition: int, time_ms: int) -> None:
        if (source, partition) not in self._stated:
            at = (source, partition)
            self._marks[at] = max(self._marks.get(at, -1), time_ms - LATENESS_MS)

    def _windows(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        day = state["event_time_ms"] // 86_400_000
        slices = ["", *(f"{column}={value}" for column, value in state["slices"].items())]
        return [
            self.quality.setdefault(
                (day, part),
                {
                    "predictions": 0,
                    "n": 0,
                    "log_loss": 0.0,
                    "brier": 0.0,
                    "right": 0,
                    "bins": [0] * 512,
                    "hits": [0] * 512,
                },
            )
            for part in slices
        ]

    def _count(self, state: dict[str, Any], label: float) -> None:
        score = state["score"]
        place = min(max(int((math.log(score) - math.log1p(-score)) * 16 + 256), 0), 511)
        for window in self._windows(state):
            window["n"] += 1
            window["log_loss"] -= math.log(score if label else 1.0 - score)
            window["brier"] += (score - label) ** 2
            window["right"] += state["decision"] == bool(label)
            window["bins"][place] += 1
            window["hits"][place] += int(label)

    def _label(self, state: dict[str, Any], label: float, status: str) -> None:
        record = {**state, "label": label, "status": status, "outcome": None, "known_at_ms": self._watermark_ms}
        self._emit(self._topics.labels, state["prediction_id"].encode(), msgspec.json.encode(record))

    def _store(self, event_id: str, state: dict[str, Any]) -> None:
        self._emit(self._topics.feedback_changelog, event_id.encode(), msgspec.msgpack.encode(state))


def serve_naive(settings: Settings, directory: Path, name: str, progress: Progress) -> None:
    """Runs the loop until the last record is done."""
    topics, group = Topics(name), f"naive.{name}"
    writer = producer(settings, **{"transactional.id": group})
    writer.init_transactions(30)

    def emit(topic: str, key: bytes, value: bytes) -> None:
        while True:
            try:
                writer.produce(topic, value, key)
                return
            except BufferError:
                writer.poll(0.05)

    join = NaiveJoin(topics, emit)
    newest = {message.key or b"": message.value or b"" for message in read_topic(settings, topics.feedback_changelog)}
    for key, value in newest.items():
        join.restore(key.decode(), msgspec.msgpack.decode(value))
    reader = consumer(settings, group)
    reader.subscribe([topics.predictions, f"{name}.chargebacks"])
    offsets: dict[tuple[str, int], int] = {}
    records, since = 0, 0.0
    while not progress.done(records):
        for record in reader.consume(500, 0.02):
            if not _is_data(record):
                continue
            if not offsets:
                writer.begin_transaction()
                since = time.monotonic()
            _take(join, topics, record)
            offsets[record.topic(), record.partition()] = record.offset() + 1
            records += 1
        join.advance(8)
        if offsets and (time.monotonic() - since > 0.05 or records >= progress.expected):
            at = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
            writer.send_offsets_to_transaction(at, reader.consumer_group_metadata(), 30)
            writer.commit_transaction(30)
            offsets.clear()
    reader.close()


def _is_data(record: Any) -> bool:
    error = record.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise RuntimeError(error.str())
    return error is None


def _take(join: NaiveJoin, topics: Topics, record: Any) -> None:
    source = "predictions" if record.topic() == topics.predictions else "outcomes"
    value = record.value()
    if value is None:
        join.state_watermark(source, record.partition(), int(record.headers()[0][1]))
    elif source == "predictions":
        join.predict(record.partition(), value)
    else:
        join.observe(record.partition(), value)
